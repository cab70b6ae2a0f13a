package engine

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-run/berth"
)

// queue holds tasks that wait to be admitted, first come first served. Tasks
// that a quota refused are held aside by what they ask for, so that smaller
// ones pass and only one of each kind tries again when the quota changes.
type queue struct {
	ready   []string
	queued  map[string]bool
	held    map[request][]string
	limiter *rate.Limiter
	maxPods int
}

// request is what a quota counts.
type request struct {
	cpu, memory, storage berth.Quantity
	gpu                  int
}

func requestOf(spec *berth.TaskSpec) request {
	return request{spec.CPU, spec.Memory, spec.EphemeralStorage, spec.GPU}
}

func newQueue() *queue {
	return &queue{queued: map[string]bool{}, held: map[request][]string{}, limiter: rate.NewLimiter(rate.Inf, 1), maxPods: berth.DefaultLimits.MaxPods}
}

func (q *queue) limit(l berth.Limits) {
	if l.MaxPods > 0 {
		q.maxPods = l.MaxPods
	}
	if l.MaxCreatesPerSecond > 0 {
		q.limiter.SetLimit(rate.Limit(l.MaxCreatesPerSecond))
		q.limiter.SetBurst(max(1, int(l.MaxCreatesPerSecond)))
	} else {
		q.limiter.SetLimit(rate.Inf)
	}
}

func (q *queue) add(id string) {
	if !q.queued[id] {
		q.queued[id] = true
		q.ready = append(q.ready, id)
	}
}

func (q *queue) hold(id string, r request) {
	q.remove(id)
	q.queued[id] = true
	q.held[r] = append(q.held[r], id)
}

// release puts one held task of a kind, or with all one of each, back to the front.
func (q *queue) release(r request) {
	ids := q.held[r]
	if len(ids) == 0 {
		return
	}
	if len(ids) == 1 {
		delete(q.held, r)
	} else {
		q.held[r] = ids[1:]
	}
	q.ready = append([]string{ids[0]}, q.ready...)
}

func (q *queue) releaseEach() {
	for r := range q.held {
		q.release(r)
	}
}

// remove forgets a task; its place in the lists is skipped later.
func (q *queue) remove(id string) { delete(q.queued, id) }

func (q *queue) length() int { return len(q.queued) }

// admit lets tasks through while there is room.
func (s *step) admit() {
	if s.driver == nil || s.health.Load().State != berth.InfraReady {
		return
	}
	q, admitted := s.queue, 0
	for len(q.ready) > 0 && len(s.loop.open)+admitted < q.maxPods {
		id := q.ready[0]
		life := s.life(id)
		if !q.queued[id] || life == nil || life.Task.State != berth.StateQueued {
			q.ready = q.ready[1:]
			delete(q.queued, id)
			continue
		}
		reservation := q.limiter.ReserveN(s.now, 1)
		if wait := reservation.DelayFrom(s.now); wait > 0 {
			reservation.CancelAt(s.now)
			s.after(wait, func(*step) {})
			return
		}
		q.ready = q.ready[1:]
		delete(q.queued, id)
		s.apply(id, func(l *berth.Life) []berth.Event { return l.Admit(s.now) })
		if a := s.life(id).Open(); a != nil {
			s.call(a.Pod).fresh = true
			admitted++
		}
	}
}

// enqueue lets a queued task wait for admission, from its NotBefore on.
func (l *loop) enqueue(life *berth.Life) {
	id := life.Task.ID
	if wait := life.NotBefore.Sub(l.engine.now()); wait > 0 {
		l.after(wait, func(s *step) {
			if life := s.life(id); life != nil && life.Task.State == berth.StateQueued {
				s.queue.add(id)
			}
		})
		return
	}
	l.queue.add(id)
}

// waiting says what a queued task waits for that nothing is wrong with.
func (l *loop) waiting(task *berth.Task) string {
	limit := berth.DefaultLimits.MaxPods
	if current := l.current.Load(); current != nil && current.config.Limits.MaxPods > 0 {
		limit = current.config.Limits.MaxPods
	}
	c := l.counts.Load()
	switch runs := c.live - c.queued; {
	case runs >= limit:
		return fmt.Sprintf("waits to be let through: %d of at most %d tasks run on %s (limits: max_pods), %d queued", runs, limit, l.name, c.queued)
	case task.Attempt > 0:
		return "waits for its next attempt"
	}
	return "waits to be let through"
}

// after posts an input once a time has passed.
func (l *loop) after(wait time.Duration, in input) {
	time.AfterFunc(wait, func() { l.inbox.post(in) })
}

// quotaWatch wakes held tasks.
type quotaWatch struct {
	watching bool
	ticking  bool
	changes  int // that were told so far
}
