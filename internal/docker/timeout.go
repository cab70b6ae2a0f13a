package docker

import (
	"context"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
)

// deadlines stop containers whose time is over: an Engine knows no time limits.
// They are known of every container that was observed to run.
type deadlines struct {
	over func(id, name string)

	mu     sync.Mutex
	timers map[string]*time.Timer
}

func newDeadlines(over func(id, name string)) *deadlines {
	return &deadlines{over: over, timers: map[string]*time.Timer{}}
}

// see takes note of a container as it is now; now is by the Engine's clock.
func (d *deadlines) see(c *container.InspectResponse, now time.Time) {
	limit := timeLimit(c.Config.Labels)
	if limit <= 0 || !c.State.Running {
		d.forget(c.ID)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timers[c.ID] == nil {
		id, name, left := c.ID, c.Name, parseTime(c.State.StartedAt).Add(limit).Sub(now)
		d.timers[id] = time.AfterFunc(max(left, 0), func() { d.over(id, name) })
	}
}

// forget drops the deadline of a container.
func (d *deadlines) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.timers[id]; t != nil {
		t.Stop()
		delete(d.timers, id)
	}
}

// clear drops all deadlines: nobody watches any more.
func (d *deadlines) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, t := range d.timers {
		t.Stop()
		delete(d.timers, id)
	}
}

// overdue stops a container whose time is over. Where that fails it is tried
// again as long as the container is watched and runs.
func (d *Driver) overdue(id, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := d.stop(ctx, id, name, terminationGrace); err == nil {
		return
	}
	d.deadlines.mu.Lock()
	defer d.deadlines.mu.Unlock()
	if d.deadlines.timers[id] != nil {
		d.deadlines.timers[id] = time.AfterFunc(time.Second, func() { d.overdue(id, name) })
	}
}
