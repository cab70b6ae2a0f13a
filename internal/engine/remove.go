package engine

import (
	"context"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// delete deletes the pod of an attempt, and forces it when it is stuck.
func (l *loop) delete(ctx context.Context, life *berth.Life, a *berth.Attempt, grace time.Duration) {
	c := l.call(a.Pod)
	if c.deleting || c.deleted || c.stopped && a.Outcome == nil {
		return
	}
	c.deleting = true
	id, number, pod, uid, driver, ended := life.Task.ID, a.Number, a.Pod, a.UID, l.driver, a.Outcome != nil
	done := l.works(&l.engine.pending)
	go func() {
		defer done()
		l.deleteSlots <- struct{}{}
		defer func() { <-l.deleteSlots }()
		held, cancel, ok := l.whileHeld(ctx)
		defer cancel()
		deletion, err := Deletion(0), error(errNotHeld)
		if ok {
			crash.Point("engine.before-delete")
			deletion, err = driver.Delete(held, pod, uid, grace)
			crash.Point("engine.delete-answered")
		}
		l.inbox.post(func(s *step) {
			c.deleting = false
			switch {
			case err != nil:
				c.failures++
				s.after(min(recreatePause<<min(c.failures, 10), 30*time.Second), func(s *step) { s.again(id) })
			case deletion == DeletionStopped:
				c.stopped = true
				s.again(id)
			case deletion == DeletionGone && ended:
				if life := s.life(id); life != nil && !life.ByNumber(number).Removed {
					s.deleted[uid] = true // the watch tells of its last changes later
				}
				s.onObserved(berth.Observation{TaskID: id, Attempt: number, Pod: pod, UID: uid, Gone: true})
			default:
				c.deleted = true
				if grace > 0 {
					s.after(grace+forceAfter, func(s *step) { s.force(ctx, id, number) })
				}
			}
		})
	}()
}

// deleteEnded deletes the pod of an attempt whose outcome and log are stored: at
// once, or when everybody else who may need it had time for it.
func (l *loop) deleteEnded(ctx context.Context, life *berth.Life, a *berth.Attempt) {
	wait, may := life.MayDelete(a, l.engine.now())
	if may {
		l.delete(ctx, life, a, podGrace)
		return
	}
	if c := l.call(a.Pod); !c.kept {
		c.kept = true
		id := life.Task.ID
		l.after(wait, func(s *step) {
			c.kept = false
			s.again(id)
		})
	}
}

// force deletes a pod that is stuck in Terminating.
func (s *step) force(ctx context.Context, id string, number int) {
	life := s.life(id)
	if life == nil {
		return
	}
	if a := life.ByNumber(number); a != nil && !a.Removed {
		s.engine.log.Warn("a pod does not go away; it is deleted by force", "pod", a.Pod, "infrastructure", s.name)
		s.call(a.Pod).deleted = false
		s.loop.delete(ctx, life, a, 0)
	}
}

// unfinished names the pods whose create or delete is under way, and those of
// attempts that have ended and wait for their log or their deletion.
func (l *loop) unfinished() []string {
	if h := l.health.Load().State; h != berth.InfraReady {
		return nil
	}
	var pods []string
	for pod, c := range l.calls {
		if c.creating || c.deleting {
			pods = append(pods, pod)
		}
	}
	for _, life := range l.lives {
		for i := range life.Attempts {
			a := &life.Attempts[i]
			if a.Outcome == nil || a.Removed {
				continue
			}
			if c := l.calls[a.Pod]; c == nil || !c.deleted && c.failures == 0 {
				pods = append(pods, a.Pod)
			}
		}
	}
	return pods
}
