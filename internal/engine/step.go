package engine

import (
	"context"
	"reflect"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// step is one turn of a loop: inputs are applied to copies of lives, which are
// committed together and only then seen and acted upon.
type step struct {
	*loop
	now     time.Time
	touched []string // tasks, in the order of their first change
	changes map[string]*berth.Change
	replies []reply
	revisit []string // to be acted upon though nothing about them changed
}

// reply answers somebody who waits for a commit.
type reply struct {
	taskID string
	send   func(error)
}

// followClock lets grace periods last as long as they are, though the time of
// day was set, or the machine slept, since the last step.
func (s *step) followClock() {
	before := s.lastStep
	s.lastStep = s.now
	if before.IsZero() {
		return
	}
	// Without its monotonic reading a time is the time of day alone.
	jump := s.now.Round(0).Sub(before.Round(0)) - s.now.Sub(before)
	if jump.Abs() < time.Second {
		return
	}
	s.engine.log.Warn("the clock was set, or the machine slept", "by", jump.Round(time.Second))
	for id := range s.open {
		s.apply(id, func(l *berth.Life) []berth.Event { l.Pause(jump); return nil })
	}
}

// life returns a life as this step has it; nil when it isn't live here.
func (s *step) life(id string) *berth.Life {
	if c, ok := s.changes[id]; ok {
		return c.Life
	}
	return s.lives[id]
}

// apply lets fn change a copy of a life. What changes nothing is not stored.
func (s *step) apply(id string, fn func(*berth.Life) []berth.Event) {
	before := s.life(id)
	if before == nil {
		return
	}
	after := before.Clone()
	events := fn(after)
	if len(events) == 0 && reflect.DeepEqual(before, after) {
		return
	}
	s.keep(after, events, false)
}

func (s *step) keep(life *berth.Life, events []berth.Event, isNew bool) {
	id := life.Task.ID
	c, ok := s.changes[id]
	if !ok {
		c = &berth.Change{New: isNew}
		s.changes[id] = c
		s.touched = append(s.touched, id)
	}
	c.Life = life
	c.Events = append(c.Events, events...)
}

// commit stores the changes. Where the store doesn't take them, new tasks are
// refused, and everything else is kept until it can be stored: outcomes are
// never dropped.
func (s *step) commit(ctx context.Context) bool {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := s.store(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			s.refuse(ctx.Err())
			return false
		}
		s.engine.log.Error("cannot store what happened; trying again", "infrastructure", s.name, "error", err)
		s.refuse(err)
		if len(s.touched) == 0 {
			return true
		}
		s.storeTrouble.Store(&err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

func (s *step) store(ctx context.Context) error {
	if len(s.touched) == 0 {
		return nil
	}
	batch := make([]berth.Change, 0, len(s.touched))
	for _, id := range s.touched {
		batch = append(batch, *s.changes[id])
	}
	crash.Point("engine.before-commit")
	if err := s.engine.store.Commit(ctx, batch); err != nil {
		return err
	}
	crash.Point("engine.committed")
	s.storeTrouble.Store(nil)
	return nil
}

// refuse takes new tasks out of the step and tells who submitted them.
func (s *step) refuse(err error) {
	var order []string
	for _, id := range s.touched {
		if !s.changes[id].New {
			order = append(order, id)
			continue
		}
		if life := s.changes[id].Life; life.Open() != nil {
			s.queue.share(life.Share).open--
		}
		delete(s.changes, id)
		s.queue.remove(id)
	}
	s.touched = order
	var replies []reply
	for _, r := range s.replies {
		if _, kept := s.changes[r.taskID]; kept || s.lives[r.taskID] != nil {
			replies = append(replies, r)
			continue
		}
		r.send(err)
	}
	s.replies = replies
}
