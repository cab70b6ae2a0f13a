package engine

import (
	"context"
	"time"

	"github.com/berth-run/berth"
)

// onSubmit stores a new task and, where there is room, admits it with the
// same commit.
func (s *step) onSubmit(life *berth.Life, events []berth.Event, r reply) {
	s.keep(life, events, true)
	s.replies = append(s.replies, r)
	s.enqueue(life)
}

func (s *step) onCancel(ctx context.Context, id string, r reply) {
	s.replies = append(s.replies, r)
	s.cancel(ctx, id)
}

// cancel stores the wish to cancel a task, if it is one of this infrastructure.
func (s *step) cancel(ctx context.Context, id string) (found bool) {
	if s.fetch(ctx, id) == nil {
		return false
	}
	s.apply(id, func(l *berth.Life) []berth.Event { return l.Cancel(s.now) })
	if s.life(id).Task.State.Terminal() {
		s.queue.forget(id)
	}
	return true
}

// onListed compares all pods that exist with all that should.
func (s *step) onListed(pods []berth.Observation, began time.Time) {
	s.setHealth(Health{State: berth.InfraReady, SeenAt: s.now})
	clear(s.present)
	clear(s.deleted)
	for _, pod := range pods {
		s.present[pod.Pod] = pod.UID
	}
	for _, pod := range pods {
		s.onObserved(pod)
	}
	s.listed = true
	for id := range s.lives {
		life := s.life(id)
		for i := range life.Attempts {
			a := &life.Attempts[i]
			if a.UID == "" || a.Removed || s.present[a.Pod] == a.UID {
				continue
			}
			if c := s.calls[a.Pod]; c != nil && !c.seen.Before(began) {
				s.recheck(id, a) // it was made while the listing was under way
				continue
			}
			gone := berth.Observation{TaskID: id, Attempt: a.Number, Pod: a.Pod, UID: a.UID, Gone: true}
			if a.Outcome == nil {
				gone.Diagnosis = s.engine.texts.Lost(s.name, &life.Task)
			}
			s.onObserved(gone)
		}
	}
	for id := range s.lives {
		s.again(id)
	}
}

// recheckAfter is how long a pod that a listing may have come too early for has
// to show up in the watch that follows it.
const recheckAfter = 2 * time.Second

// recheck asks for a pod that was not in a listing, and wasn't seen since.
func (s *step) recheck(id string, a *berth.Attempt) {
	pod, number := a.Pod, a.Number
	s.after(recheckAfter, func(s *step) {
		life := s.life(id)
		if life == nil || s.driver == nil || s.present[pod] != "" {
			return
		}
		a := life.ByNumber(number)
		if a == nil || a.UID == "" || a.Removed {
			return
		}
		driver, order, gone := s.driver, s.order(life, a), berth.Observation{TaskID: id, Attempt: number, Pod: pod, UID: a.UID, Gone: true}
		if a.Outcome == nil {
			gone.Diagnosis = s.engine.texts.Lost(s.name, &life.Task)
		}
		go func() {
			if _, _, err := driver.Find(s.ctx, order); err != nil && asRefusal(err).Kind == RefusedNotFound {
				s.inbox.post(func(s *step) { s.onObserved(gone) })
			}
		}()
	})
}

// again lets a task be acted upon though nothing about it changed.
func (s *step) again(id string) {
	if life := s.life(id); life != nil {
		if _, ok := s.changes[id]; !ok {
			s.revisit = append(s.revisit, id)
		}
	}
}

func (s *step) onObserved(pod berth.Observation) {
	s.seen()
	life := s.life(pod.TaskID)
	if life == nil {
		s.stray(pod)
		return
	}
	if pod.Gone {
		delete(s.present, pod.Pod)
	} else {
		s.present[pod.Pod] = pod.UID
	}
	s.apply(pod.TaskID, func(l *berth.Life) []berth.Event {
		a := l.ByNumber(pod.Attempt)
		if a == nil || a.Pod != pod.Pod {
			return nil
		}
		first := a.UID == ""
		events := l.Observe(pod, s.now)
		if first && a.UID != "" && s.call(a.Pod).fresh {
			events = notAdopted(events) // our own create is still in flight
		}
		return events
	})
	if pod.Leaving {
		s.wanted(pod.TaskID, pod.Pod)
	}
	s.consequences(pod.TaskID)
}

// notAdopted drops the note that an earlier process created the pod.
func notAdopted(events []berth.Event) []berth.Event {
	kept := events[:0]
	for _, e := range events {
		if e.Type != berth.EventAdopted {
			kept = append(kept, e)
		}
	}
	return kept
}

// consequences does what follows within the step from a changed life.
func (s *step) consequences(id string) {
	life := s.life(id)
	if life == nil {
		return
	}
	if life.Task.State == berth.StateQueued {
		s.enqueue(life)
	}
	for i := range life.Attempts {
		a := &life.Attempts[i]
		if a.Outcome != nil && a.Usage == nil && !a.StartedAt.IsZero() {
			number, used := a.Number, s.meters.total(a.Pod, a.EndedAt)
			s.apply(id, func(l *berth.Life) []berth.Event { l.Measured(number, used); return nil })
		}
	}
}

// stray is a pod with our instance's label whose task isn't live: a late pod
// of an ended task is deleted; one that the store doesn't know stays.
func (s *step) stray(pod berth.Observation) {
	if pod.Gone {
		delete(s.deleted, pod.UID)
		delete(s.calls, pod.Pod)
		return
	}
	if pod.UID == "" || s.deleted[pod.UID] {
		return
	}
	c := s.call(pod.Pod)
	if c.deleting || c.deleted || c.kept {
		return
	}
	c.deleting = true
	ctx := s.ctx
	go func() {
		life, err := s.engine.store.Life(ctx, pod.TaskID)
		s.inbox.post(func(s *step) {
			c.deleting = false
			switch {
			case berth.CodeOf(err) == berth.CodeNotFound:
				s.orphan(pod)
			case err != nil || !life.Settled():
			case pod.Attempt <= len(life.Attempts):
				s.discard(c, pod)
			case pod.Outcome != nil:
				// Of an attempt that the store knows nothing of, of a task that has
				// ended by what it knows: it is deleted only some time after its end.
				c.kept = true
				s.after(berth.OrphanGrace, func(s *step) {
					c.kept = false
					s.discard(c, pod)
				})
			}
		})
	}()
}

// discard deletes a stray pod.
func (s *step) discard(c *calls, pod berth.Observation) {
	if s.driver == nil || c.deleting || c.deleted {
		return
	}
	c.deleting = true
	driver, ctx := s.driver, s.ctx
	go func() {
		ctx, cancel, ok := s.whileHeld(ctx)
		defer cancel()
		deletion, err := Deletion(0), error(errNotHeld)
		if ok {
			deletion, err = driver.Delete(ctx, pod.Pod, pod.UID, -1)
		}
		if err == nil && deletion == DeletionStopped {
			_, err = driver.Delete(ctx, pod.Pod, pod.UID, 0)
		}
		if err != nil && ctx.Err() == nil {
			s.engine.log.Warn("cannot delete a pod that is not needed", "pod", pod.Pod, "infrastructure", s.name, "error", err)
		}
		s.inbox.post(func(s *step) { c.deleting, c.deleted = false, err == nil })
	}()
}

// orphan records a task that the store does not know, by its pod. Its log and
// outcome are kept like any other's.
func (s *step) orphan(pod berth.Observation) {
	if s.life(pod.TaskID) != nil {
		return
	}
	s.engine.log.Warn("a pod carries the label of this store, which did not know its task; it is recorded as an orphan", "pod", pod.Pod, "infrastructure", s.name)
	life, events := berth.NewOrphan(s.name, pod, s.now)
	s.keep(life, events, true)
	s.onObserved(pod)
}

// onLost: the infrastructure can't be seen. Its tasks stay as they are.
func (s *step) onLost(refusal *Refusal) {
	state := berth.InfraUnreachable
	switch refusal.Kind {
	case RefusedUnauthorized:
		state = berth.InfraUnauthorized
	case RefusedForbidden:
		state = berth.InfraForbidden
	case RefusedPermanent, RefusedNotFound:
		state = berth.InfraForbidden
	}
	h := s.health.Load()
	if h.State == berth.InfraReplaced {
		return
	}
	since := s.now
	if h.State == state {
		since = h.Since
	}
	s.setHealth(Health{State: state, Reason: refusal.Error(), Diagnosis: refusal.Diagnosis, Since: since, SeenAt: h.SeenAt})
}

// seen: something was heard from the infrastructure.
func (s *step) seen() {
	h := *s.health.Load()
	if h.State == berth.InfraReady && s.now.Sub(h.SeenAt) > time.Second {
		h.SeenAt = s.now
		s.health.Store(&h)
	}
}

// setHealth records how the infrastructure stands, and lets grace periods
// stand still while it could not be seen.
func (s *step) setHealth(h Health) {
	before := s.health.Load()
	if h.State == berth.InfraReady {
		if !s.outageSince.IsZero() {
			outage := s.now.Sub(s.outageSince)
			s.outageSince = time.Time{}
			for id := range s.open {
				s.apply(id, func(l *berth.Life) []berth.Event { l.Pause(outage); return nil })
			}
			for id := range s.lives {
				s.again(id)
			}
		}
	} else if s.outageSince.IsZero() {
		s.outageSince = s.now
	}
	s.health.Store(&h)
	select {
	case <-s.connected:
	default:
		close(s.connected)
	}
	if before.State != h.State || before.Reason != h.Reason {
		if h.State != berth.InfraReady {
			s.engine.log.Warn("infrastructure "+string(h.State), "infrastructure", s.name, "reason", h.Reason)
		}
		s.engine.hub.touchAll()
	}
}

// reached: the infrastructure answered after this process connected to it.
func (s *step) reached() {
	for id := range s.lives {
		s.again(id)
	}
}

// expire fails what has been patient for long enough.
func (s *step) expire(id string) {
	if s.health.Load().State != berth.InfraReady || !s.listed {
		return // nothing runs out while nothing is seen; the end of the outage asks again
	}
	s.apply(id, func(l *berth.Life) []berth.Event {
		return l.Expire(s.config.Grace, func(limit time.Duration) *berth.Diagnosis {
			return s.engine.texts.StartTimedOut(s.name, &l.Task, limit)
		}, s.now)
	})
	s.consequences(id)
	s.again(id)
}

func (l *loop) stopTimer(id string) {
	if t := l.timers[id]; t != nil {
		t.Stop()
		delete(l.timers, id)
	}
}

// setTimer has expire called when a task's patience ends.
func (l *loop) setTimer(life *berth.Life) {
	id := life.Task.ID
	l.stopTimer(id)
	deadline, _ := life.Deadline(l.config.Grace)
	if deadline.IsZero() {
		return
	}
	wait := max(0, deadline.Sub(l.engine.now()))
	if l.health.Load().State != berth.InfraReady || !l.listed {
		return
	}
	l.timers[id] = time.AfterFunc(wait, func() { l.inbox.post(func(s *step) { s.expire(id) }) })
}
