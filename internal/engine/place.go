package engine

import (
	"context"
	"time"

	"github.com/berth-run/berth"
)

// Candidate tells how an infrastructure that was started stands to a task that
// may be placed there.
func (e *Engine) Candidate(name string, spec *berth.TaskSpec) berth.Candidate {
	l := e.loop(name)
	if l == nil {
		return berth.Candidate{Name: name, MaxPods: berth.DefaultLimits.MaxPods}
	}
	counts := l.counts.Load()
	c := berth.Candidate{Name: name, MaxPods: l.podLimit(), Ready: l.health.Load().State == berth.InfraReady, Live: counts.live, Queued: counts.queued}
	if spec == nil {
		c.Held = len(counts.held) > 0
	} else {
		_, c.Held = counts.held[requestOf(spec)]
	}
	return c
}

// Fits asks an infrastructure whether it would ever take a task: an error with
// a diagnosis where it would not. now is false where it would not now.
func (e *Engine) Fits(ctx context.Context, name string, spec berth.TaskSpec) (now bool, err error) {
	l := e.loop(name)
	if l == nil {
		return false, nil
	}
	spec.Infrastructure = name
	life, _ := berth.NewLife("placement", "", "", spec, e.now())
	refusal := e.askPreflight(ctx, l, life)
	if refusal != nil && refusal.Hopeless && refusal.Diagnosis != nil {
		return false, berth.Refused(name, refusal.Diagnosis)
	}
	return refusal == nil || refusal.Kind != RefusedQuota, nil
}

// Front returns tasks that wait on an infrastructure and would be let through
// soon, or are held back by a quota: at most so many of each share.
func (e *Engine) Front(ctx context.Context, name string, most int) []*berth.Life {
	l := e.loop(name)
	if l == nil {
		return nil
	}
	var lives []*berth.Life
	err := e.ask(ctx, l, "", func(s *step, r reply) {
		lives = s.queue.front(ctx, most)
		s.replies = append(s.replies, r)
	})
	if err != nil {
		return nil
	}
	return lives
}

// Move lets tasks that wait on one infrastructure, and were never tried, wait on
// another. share is what they share room as there. It returns how many moved.
func (e *Engine) Move(ctx context.Context, from, to, why string, lives []*berth.Life, share func(*berth.Life) string) int {
	home, away := e.loop(from), e.loop(to)
	if home == nil || away == nil {
		return 0
	}
	moved := 0
	err := e.ask(ctx, home, "", func(s *step, r reply) {
		s.replies = append(s.replies, r)
		for _, life := range lives {
			if s.fetch(ctx, life.Task.ID) != nil && s.move(life.Task.ID, to, share(life), why) {
				moved++
			}
		}
	})
	if err != nil {
		return 0
	}
	return moved
}

// move takes one task out of the queue, for another infrastructure.
func (s *step) move(id, to, share, why string) bool {
	s.apply(id, func(l *berth.Life) []berth.Event { return l.Move(to, share, why, s.now) })
	if s.life(id).Task.Infrastructure == s.name {
		return false
	}
	s.queue.forget(id)
	return true
}

// departed lets go of a life that another infrastructure has from now on.
func (l *loop) departed(before, life *berth.Life) {
	id := life.Task.ID
	if before != nil && !before.Task.State.Terminal() {
		l.unended--
		l.queued--
	}
	delete(l.lives, id)
	l.queue.remove(id) // which may have read it while this was not stored
	l.stopTimer(id)
	l.engine.hub.publish(life)
	if away := l.engine.loop(life.Task.Infrastructure); away != nil {
		away.inbox.post(func(s *step) {
			s.unended++
			s.queued++
			s.queue.stored(life)
		})
	}
}

// front returns tasks of all shares that would be let through soon, a page of
// each at most. They stay in the queue.
func (q *queue) front(ctx context.Context, most int) []*berth.Life {
	var lives []*berth.Life
	for _, s := range q.shares {
		if len(s.page) == 0 || s.behind {
			if err := q.fill(ctx, s); err != nil {
				return lives
			}
		}
		for _, w := range s.page[:min(most, len(s.page))] {
			lives = append(lives, w.life)
		}
	}
	for _, h := range q.held {
		lives = append(lives, h.lives...)
	}
	return lives
}

// balancePace is how often it is looked whether tasks would begin sooner
// elsewhere.
const balancePace = 2 * time.Second

// Balance calls fn at a pace while the engine runs.
func (e *Engine) Balance(fn func(context.Context)) {
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		for sleep(e.ctx, balancePace) {
			fn(e.ctx)
		}
	}()
}

// Takes reports why an infrastructure takes nothing, as [Engine.Submit] would.
func (e *Engine) Takes(ctx context.Context, name string) error {
	l := e.loop(name)
	if l == nil {
		return berth.Errorf(berth.CodeNotFound, "infrastructure %q is not known", name)
	}
	return e.admissible(ctx, l)
}
