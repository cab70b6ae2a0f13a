package engine

import (
	"context"
	"errors"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// act does what a committed life asks for. It decides by what is stored, and
// by what is under way already; called twice it does nothing twice.
func (l *loop) act(ctx context.Context, life *berth.Life) {
	reachable := l.driver != nil && l.health.Load().State != berth.InfraReplaced
	for i := range life.Attempts {
		if a := &life.Attempts[i]; a.Logs == berth.LogsOpen && a.MayHaveRun() && (reachable || a.Removed) {
			l.follow(ctx, life, a)
		}
	}
	if !reachable {
		return
	}
	l.setTimer(life)
	if a := life.Open(); a != nil {
		switch {
		case a.UID == "":
			l.ensure(ctx, life, a)
		case life.Task.CancelledAt != nil:
			l.delete(ctx, life, a, podGrace)
		}
	}
	for i := range life.Attempts {
		a := &life.Attempts[i]
		if a.UID == "" {
			continue
		}
		if c := l.calls[a.Pod]; c != nil && c.follower != nil && a.Outcome != nil {
			l.endLog(a, c.follower)
		}
		if a.Outcome != nil && !a.Removed && a.Logs != berth.LogsOpen {
			l.deleteEnded(ctx, life, a)
		}
	}
}

func (l *loop) call(pod string) *calls {
	c := l.calls[pod]
	if c == nil {
		c = &calls{}
		l.calls[pod] = c
	}
	return c
}

// ensure sees to it that the pod of an intended attempt exists.
func (l *loop) ensure(ctx context.Context, life *berth.Life, a *berth.Attempt) {
	c := l.call(a.Pod)
	if c.creating && c.unwanted != nil && life.Task.CancelledAt != nil {
		close(c.unwanted)
		c.unwanted = nil
	}
	if c.creating || c.waiting {
		return
	}
	if !c.fresh && !l.listed {
		return // the listing may show that it exists
	}
	if c.fresh && life.Task.CancelledAt != nil && c.failures == 0 {
		// Nothing was ever sent for it, and now never will be.
		id := life.Task.ID
		l.inbox.post(func(s *step) {
			s.apply(id, func(l *berth.Life) []berth.Event { return l.Never(s.now) })
		})
		return
	}
	c.creating, c.quota = true, l.quota.changes
	l.creating++
	order := l.order(life, a)
	driver, fresh, doubtful, cancelled := l.driver, c.fresh, c.doubtful, life.Task.CancelledAt != nil
	if !cancelled {
		c.unwanted = make(chan struct{})
		order.Unwanted = c.unwanted
	}
	done := l.works(&l.engine.pending)
	go func() {
		defer done()
		l.createSlots <- struct{}{}
		defer func() { <-l.createSlots }()
		var result input
		switch {
		case cancelled || !fresh:
			result = l.resolve(ctx, driver, order, a.IntendedAt, cancelled)
		case doubtful:
			result = l.findAgain(ctx, driver, order, a.IntendedAt)
		default:
			result = l.create(ctx, driver, order, a.IntendedAt)
		}
		l.inbox.post(func(s *step) {
			call := s.call(order.Pod)
			call.creating, call.unwanted = false, nil
			s.creating--
			result(s)
			s.again(order.TaskID)
		})
	}()
}

func (l *loop) order(life *berth.Life, a *berth.Attempt) Order {
	return Order{
		Instance: l.engine.store.Instance(), TaskID: life.Task.ID, Attempt: a.Number, Pod: a.Pod,
		ImageID: life.Attempts[0].ImageID, Spec: life.Task.Spec,
	}
}

// prepare adds what the agent of a pod is given, and what its proxy takes.
func (l *loop) prepare(ctx context.Context, order *Order) error {
	config := l.current.Load().config
	if config.Proxy != nil {
		given, err := l.engine.agents.Proxy(ctx, config)
		if err != nil {
			return err
		}
		order.Proxy = given
	}
	if !order.Spec.Agent() {
		return nil
	}
	given, err := l.engine.agents.Prepare(ctx, config, *order)
	order.Agent = given
	return err
}

// create makes the pod and says what follows from the answer.
func (l *loop) create(ctx context.Context, driver Driver, order Order, intended time.Time) input {
	err := l.prepare(ctx, &order)
	held, cancel, ok := l.whileHeld(ctx)
	defer cancel()
	if !ok {
		return func(s *step) { s.pause(order, nil) }
	}
	var uid string
	if err == nil {
		crash.Point("engine.before-create")
		began := time.Now()
		uid, err = driver.Create(held, order)
		l.pace.answered(time.Since(began), overloaded(err), time.Now())
		crash.Point("engine.create-answered")
	}
	if err == nil {
		return func(s *step) {
			c := s.call(order.Pod)
			c.failures, c.forbidden, c.seen = 0, 0, time.Now()
			s.apply(order.TaskID, func(l *berth.Life) []berth.Event { return l.Seen(uid, false, s.now) })
			if life := s.life(order.TaskID); life != nil {
				s.release(requestOf(&life.Task.Spec))
			}
		}
	}
	refusal := asRefusal(err)
	switch refusal.Kind {
	case RefusedExists, RefusedUnknown:
		return l.find(ctx, driver, order, intended, refusal.Kind == RefusedUnknown)
	}
	return func(s *step) { s.refused(order, refusal) }
}

// find looks what became of a create that may have been done. Where nothing is
// found, and nobody knows that there was something, the same name is tried
// again: a late first create and that one make one pod. Doubtful says that it
// is our own create that may have been done.
func (l *loop) find(ctx context.Context, driver Driver, order Order, intended time.Time, doubtful bool) input {
	uid, ours, err := driver.Find(ctx, order)
	var existed bool
	if doubtful && err != nil && asRefusal(err).Kind == RefusedNotFound {
		var unknown error
		if existed, unknown = driver.Vouch(ctx, order.Pod, intended); passes(unknown) {
			err = unknown
		}
	}
	return func(s *step) {
		c := s.call(order.Pod)
		c.doubtful = false
		switch {
		case err == nil:
			s.found(order, uid, ours, !c.fresh)
		case existed:
			s.lose(order.TaskID)
		default:
			c.doubtful = doubtful && asRefusal(err).Kind != RefusedNotFound
			s.pause(order, nil)
		}
	}
}

// findAgain looks once more for what could not be looked for before.
func (l *loop) findAgain(ctx context.Context, driver Driver, order Order, intended time.Time) input {
	if err := l.prepare(ctx, &order); err != nil {
		return func(s *step) { s.pause(order, asRefusal(err)) }
	}
	return l.find(ctx, driver, order, intended, true)
}

// passes reports whether an answer is of an infrastructure in trouble, which
// says nothing of what was asked.
func passes(err error) bool {
	if err == nil {
		return false
	}
	switch asRefusal(err).Kind {
	case RefusedUnreachable, RefusedUnauthorized, RefusedTransient:
		return true
	}
	return false
}

// found takes in that a pod of the order's name exists: it is the attempt's, or
// somebody else's, which leaves the attempt the next name.
func (s *step) found(order Order, uid string, ours, adopted bool) {
	if ours {
		s.call(order.Pod).seen = time.Now()
		s.apply(order.TaskID, func(l *berth.Life) []berth.Event { return l.Seen(uid, adopted, s.now) })
		return
	}
	s.apply(order.TaskID, func(l *berth.Life) []berth.Event { return l.Rename(s.now) })
	if a := s.life(order.TaskID).Open(); a != nil {
		s.call(a.Pod).fresh = true
	}
}

// resolve finds out whether the pod that an earlier process intended exists
// or ever did.
func (l *loop) resolve(ctx context.Context, driver Driver, order Order, intended time.Time, cancelled bool) input {
	if err := l.prepare(ctx, &order); err != nil {
		refusal := asRefusal(err)
		return func(s *step) { s.refused(order, refusal) }
	}
	uid, ours, err := driver.Find(ctx, order)
	crash.Point("engine.found")
	switch {
	case err == nil:
		return func(s *step) { s.found(order, uid, ours, true) }
	case asRefusal(err).Kind != RefusedNotFound:
		refusal := asRefusal(err)
		return func(s *step) { s.unseen(order, refusal) }
	case cancelled:
		return func(s *step) {
			s.apply(order.TaskID, func(l *berth.Life) []berth.Event { return l.Never(s.now) })
		}
	}
	existed, err := driver.Vouch(ctx, order.Pod, intended)
	crash.Point("engine.vouched")
	switch {
	case ctx.Err() != nil:
		return func(*step) {}
	case passes(err):
		refusal := asRefusal(err)
		return func(s *step) { s.unseen(order, refusal) }
	}
	// Without a witness a recent intent is believed not to have been carried
	// out: pods don't go away by themselves within a minute.
	if err != nil && l.engine.now().Sub(intended) < time.Minute {
		existed, err = false, nil
	}
	return func(s *step) {
		if err != nil || existed {
			s.lose(order.TaskID)
			return
		}
		s.call(order.Pod).fresh = true
	}
}

// lose takes in that a pod may have been there, and is not.
func (s *step) lose(id string) {
	s.apply(id, func(l *berth.Life) []berth.Event {
		return l.Lose(s.engine.texts.Lost(s.name, &l.Task), s.now)
	})
	s.consequences(id)
}

// unseen takes in that it could not be found out whether a pod exists. Whatever
// the reason, the pod may be there.
func (s *step) unseen(order Order, r *Refusal) {
	if r.Kind == RefusedUnreachable || r.Kind == RefusedUnauthorized {
		s.onLost(r)
		r = nil
	}
	s.pause(order, r)
}

// refused takes in why a pod was not created.
func (s *step) refused(order Order, r *Refusal) {
	id, c := order.TaskID, s.call(order.Pod)
	if r.Kind == RefusedForbidden {
		c.forbidden++
	} else {
		c.forbidden = 0
	}
	cancelled := s.life(id) != nil && s.life(id).Task.CancelledAt != nil
	switch {
	case r.Kind == RefusedUnreachable || r.Kind == RefusedUnauthorized:
		s.onLost(r)
		s.pause(order, nil)
	case cancelled:
		s.apply(id, func(l *berth.Life) []berth.Event { return l.Never(s.now) })
	case r.Kind == RefusedQuota:
		s.apply(id, func(l *berth.Life) []berth.Event { return l.Withdraw(r.Diagnosis, s.now, s.now) })
		switch life := s.life(id); {
		case life == nil:
		case c.quota != s.quota.changes:
			s.queue.add(life) // it changed while the answer was on its way
		default:
			s.queue.hold(life)
			s.watchQuota()
		}
	case r.Kind == RefusedTransient, r.Kind == RefusedForbidden && c.forbidden <= forbiddenAgain:
		s.pause(order, r)
	default:
		s.apply(id, func(l *berth.Life) []berth.Event { return l.Refuse(r.Diagnosis, s.now) })
		s.consequences(id)
	}
}

// pause tries a create again after a while, showing why it waits.
func (s *step) pause(order Order, r *Refusal) {
	c := s.call(order.Pod)
	wait := min(recreatePause<<min(c.failures, 10), 30*time.Second)
	c.failures++
	c.waiting = true
	if r != nil && r.Diagnosis != nil {
		s.apply(order.TaskID, func(l *berth.Life) []berth.Event { return l.Stall(r.Diagnosis, r.Patience, s.now) })
	}
	s.after(wait, func(s *step) {
		s.call(order.Pod).waiting = false
		s.again(order.TaskID)
	})
}

// overloaded reports whether a create failed because the API server had too
// much to do. One that refuses with a time to wait is asked again below the
// driver, and shows by how long that took.
func overloaded(err error) bool {
	if err == nil {
		return false
	}
	kind := asRefusal(err).Kind
	return kind == RefusedTransient || kind == RefusedUnknown || kind == RefusedUnreachable
}

// asRefusal returns err as a Refusal; one that no driver classified is doubtful.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Kind: RefusedUnknown, Err: err}
}
