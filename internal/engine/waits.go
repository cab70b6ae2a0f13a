package engine

import (
	"fmt"
	"time"

	"github.com/berth-run/berth"
)

// quietAfter is how long a task may wait with nothing to be told about it.
const quietAfter = 3 * time.Second

// waits says what of the cluster a task without a pod waits for, in words; empty
// when it has not waited for long, or has a pod. It is worked out when somebody
// asks, and never stored. See waiting for the queue.
func (l *loop) waits(task *berth.Task, h *Health, now time.Time) string {
	life := l.engine.hub.life(task.ID)
	if life == nil {
		return ""
	}
	from := task.CreatedAt
	if task.State == berth.StateLaunching {
		a := life.Open()
		if a == nil || a.UID != "" {
			return ""
		}
		from = a.IntendedAt
	} else if life.NotBefore.After(from) {
		from = life.NotBefore
	}
	current := l.current.Load()
	if current == nil || !task.Waiting() || now.Sub(from) < quietAfter {
		return ""
	}
	config, since := current.config, " since "+from.UTC().Format("15:04:05Z")
	switch {
	case h.State == berth.InfraUnknown:
		return fmt.Sprintf("%s at %s has not answered yet%s", l.name, current.driver.Server(), since)
	case task.State == berth.StateLaunching && config.Kind == berth.KindDocker:
		return "the Docker Engine is fetching the image or making the container" + since
	case task.State == berth.StateLaunching:
		return fmt.Sprintf("the cluster has been asked to create pod %s and has not answered%s", life.Open().Pod, since)
	}
	return ""
}
