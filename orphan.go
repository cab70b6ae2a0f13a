package berth

import (
	"fmt"
	"time"
)

// OrphanGrace is how long the pod of an orphan stays after its end. Whoever else
// knows of it, a process on another copy of the store, has that time to take its
// outcome and its log.
const OrphanGrace = 3 * time.Minute

// NewOrphan is a task that a store did not know, of which a pod with the store's
// own label was found: the store is an older copy, or a copy of it is in use
// elsewhere. Of what was asked for nothing is known but what the pod shows. It is
// never tried again.
func NewOrphan(infrastructure string, o Observation, now time.Time) (*Life, []Event) {
	l := &Life{Key: "orphan/" + o.TaskID, Task: Task{
		ID: o.TaskID, State: StateLaunching, Infrastructure: infrastructure, Image: o.Image, Attempt: o.Attempt, Pod: &o.Pod,
		CreatedAt: now.UTC(), Orphan: true, Steps: []StepStatus{}, Spec: TaskSpec{Infrastructure: infrastructure, Image: o.Image},
	}}
	for n := 1; n < o.Attempt; n++ {
		l.Attempts = append(l.Attempts, Attempt{
			Number: n, Pod: PodName(o.TaskID, n, 0), Removed: true, Logs: LogsIncomplete, IntendedAt: now.UTC(),
			Outcome: &Outcome{Unknown: true, Reason: "nothing is known of it"},
		})
	}
	l.Attempts = append(l.Attempts, Attempt{Number: o.Attempt, Pod: o.Pod, UID: o.UID, IntendedAt: o.StartedAt.UTC(), GraceFrom: now.UTC()})
	return l, []Event{l.event(EventWarning, now, fmt.Sprintf("found pod %s, whose task this store did not know: the store is an older copy, or a copy of it is in use elsewhere", o.Pod))}
}

// MayDelete reports whether the pod of an attempt that has ended may be deleted,
// and if not, how long that has to wait.
func (l *Life) MayDelete(a *Attempt, now time.Time) (wait time.Duration, may bool) {
	if !l.Task.Orphan || l.Task.CancelledAt != nil {
		return 0, true
	}
	wait = OrphanGrace - now.Sub(a.EndSeen)
	return wait, wait <= 0
}
