package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/berth-run/berth"
)

// admit lets tasks through while there is room, and the API server takes pods
// quickly enough.
func (s *step) admit(ctx context.Context) {
	if s.driver == nil || s.health.Load().State != berth.InfraReady {
		return
	}
	for admitted := 0; len(s.loop.open)+admitted < s.maxPods && s.creating+admitted < s.pace.limit(); admitted++ {
		if wait := s.pace.delay(s.now); wait > 0 {
			s.after(wait, func(*step) {})
			return
		}
		life, err := s.queue.next(ctx)
		if err != nil {
			s.engine.log.Error("cannot read what waits to be let through; trying again", "infrastructure", s.name, "error", err)
			s.after(time.Second, func(*step) {})
			return
		}
		if life == nil {
			return
		}
		id := life.Task.ID
		if s.life(id) == nil {
			s.lives[id] = life
		}
		s.apply(id, func(l *berth.Life) []berth.Event { return l.Admit(s.now) })
		if a := s.life(id).Open(); a != nil {
			s.pace.took(s.now)
			s.call(a.Pod).fresh = true
			s.queue.share(life.Share).open++
		}
	}
}

// enqueue lets a queued task wait for admission, from its NotBefore on.
func (l *loop) enqueue(life *berth.Life) {
	id := life.Task.ID
	if wait := life.NotBefore.Sub(l.engine.now()); wait > 0 {
		l.after(wait, func(s *step) { s.waitsAgain(id) })
		return
	}
	l.queue.add(life)
}

// waitsAgain puts a task that is here, and queued, into the queue.
func (s *step) waitsAgain(id string) *berth.Life {
	life := s.life(id)
	if life == nil || life.Task.State != berth.StateQueued {
		return nil
	}
	s.queue.add(life)
	return life
}

// release lets one task of a kind that a quota holds try again.
func (s *step) release(r request) {
	for id := s.queue.release(r); id != ""; id = s.queue.release(r) {
		if life := s.waitsAgain(id); life != nil {
			s.queue.in[id].free = true
			return
		}
	}
}

// releaseEach lets one task of each kind that a quota holds try again.
func (s *step) releaseEach() {
	for _, r := range s.queue.requests() {
		s.release(r)
	}
}

// fetch takes up a task that merely waits, so that it can be changed.
func (s *step) fetch(ctx context.Context, id string) *berth.Life {
	if life := s.life(id); life != nil {
		return life
	}
	life, err := s.engine.store.Life(ctx, id)
	if err != nil || !life.Parked() || life.Task.Infrastructure != s.name {
		return nil
	}
	s.lives[id] = life
	return life
}

// podLimit is how many tasks may run at once, as readers see it.
func (l *loop) podLimit() int {
	if current := l.current.Load(); current != nil && current.config.Limits.MaxPods > 0 {
		return current.config.Limits.MaxPods
	}
	return berth.DefaultLimits.MaxPods
}

// waiting says what a queued task waits for that nothing is wrong with.
func (l *loop) waiting(task *berth.Task) string {
	limit, c := l.podLimit(), l.counts.Load()
	switch runs := c.live - c.queued; {
	case runs >= limit:
		return fmt.Sprintf("waits to be let through: %d of at most %d tasks run on %s (limits: max_pods), %d queued", runs, limit, l.name, c.queued)
	case task.Attempt > 0:
		return "waits for its next attempt"
	}
	return "waits to be let through"
}

// after posts an input once a time has passed.
func (l *loop) after(wait time.Duration, in input) *time.Timer {
	return time.AfterFunc(wait, func() { l.inbox.post(in) })
}
