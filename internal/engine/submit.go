package engine

import (
	"context"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

// longCreate is how long a submission waits for a create: what takes longer,
// such as pulling an image first, is better looked at than waited for blindly.
const longCreate = 3 * time.Second

// Submit stores a task on an infrastructure that was started, and returns
// once its pod's creation was tried where there is room, or takes long. share
// is what it shares room as.
func (e *Engine) Submit(ctx context.Context, owner, share string, submission berth.Submission) (berth.Task, error) {
	name := submission.Spec.Infrastructure
	l := e.loop(name)
	if l == nil {
		return berth.Task{}, berth.Errorf(berth.CodeNotFound, "infrastructure %q is not known", name)
	}
	if submission.Key == "" {
		submission.Key = xid.New().String()
	}
	done, err := e.alone(ctx, submission.Key)
	if err != nil {
		return berth.Task{}, err
	}
	defer done()
	if life, err := e.store.ByKey(ctx, submission.Key); err == nil {
		return e.Task(ctx, life.Task.ID)
	} else if berth.CodeOf(err) != berth.CodeNotFound {
		return berth.Task{}, err
	}
	if err := e.admissible(ctx, l); err != nil {
		return berth.Task{}, err
	}
	id, err := e.ids.next(ctx, e.store)
	if err != nil {
		return berth.Task{}, err
	}
	life, events := berth.NewLife(id, owner, submission.Key, submission.Spec, e.now())
	life.Share, life.Among = share, submission.Among
	if !submission.NoPreflight {
		if err := e.preflight(ctx, l, life); err != nil {
			return berth.Task{}, err
		}
	}
	changed, stop := e.hub.watch(id)
	defer stop()
	if err := e.ask(ctx, l, id, func(s *step, r reply) { s.onSubmit(life, events, r) }); err != nil {
		return berth.Task{}, err
	}
	long := time.NewTimer(longCreate)
	defer long.Stop()
	for {
		life := e.hub.life(id)
		if life == nil {
			return e.Task(ctx, id) // it waits to be let through, or is settled
		}
		if !tried(life) {
			task, err := e.Task(ctx, id)
			if err != nil || l.health.Load().State != berth.InfraReady {
				return task, err
			}
		} else {
			return e.Task(ctx, id)
		}
		select {
		case <-changed:
		case <-long.C:
			return e.Task(ctx, id)
		case <-ctx.Done():
			return e.Task(context.WithoutCancel(ctx), id)
		}
	}
}

// alone waits until no other submission with that key is under way.
func (e *Engine) alone(ctx context.Context, key string) (done func(), err error) {
	for {
		e.mu.Lock()
		other, taken := e.submitting[key]
		if !taken {
			mine := make(chan struct{})
			e.submitting[key] = mine
			e.mu.Unlock()
			return func() {
				e.mu.Lock()
				delete(e.submitting, key)
				e.mu.Unlock()
				close(mine)
			}, nil
		}
		e.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tried reports whether a pod's creation was tried, or has to wait.
func tried(life *berth.Life) bool {
	switch life.Task.State {
	case berth.StateQueued:
		return true
	case berth.StateLaunching:
		return life.Current().UID != "" || life.Task.Diagnosis != nil
	}
	return true
}

// admissible refuses a submission to what was never reached: nothing is
// stored that could not run. One that is only out of reach now takes it.
func (e *Engine) admissible(ctx context.Context, l *loop) error {
	if trouble := l.storeTrouble.Load(); trouble != nil {
		return *trouble
	}
	select {
	case <-l.connected:
	case <-ctx.Done():
		return berth.Errorf(berth.CodeUnavailable, "infrastructure %s does not answer: %w", l.name, ctx.Err())
	}
	h := l.health.Load()
	switch h.State {
	case berth.InfraReady:
		return nil
	case berth.InfraReplaced, berth.InfraRemoved:
		return berth.Errorf(berth.CodeConflict, "infrastructure %s: %s", l.name, h.Reason)
	}
	address, identity, err := e.store.Identity(ctx, l.name)
	if err != nil {
		return err
	}
	if current := l.current.Load(); identity != "" && current != nil && address == current.driver.Server() {
		for h.passes(e.now()) {
			if h.State == berth.InfraUnreachable || !h.SeenAt.IsZero() {
				return nil
			}
			// This process never saw it ready: its API server starts, or the entry
			// was changed to what isn't granted. Soon it is known which.
			if !sleep(ctx, 50*time.Millisecond) {
				return ctx.Err()
			}
			if h = l.health.Load(); h.State == berth.InfraReady {
				return nil
			}
		}
	}
	code := map[berth.InfrastructureState]berth.ErrorCode{
		berth.InfraUnreachable: berth.CodeUnavailable, berth.InfraUnauthorized: berth.CodeUnauthorized,
	}[h.State]
	if code == "" {
		code = berth.CodeForbidden
	}
	remedy := ""
	if h.Diagnosis != nil && h.Diagnosis.Remedy.Text != "" {
		remedy = " (" + string(h.Diagnosis.Remedy.By) + ": " + h.Diagnosis.Remedy.Text + ")"
	}
	return berth.Errorf(code, "infrastructure %s: %s%s", l.name, h.Reason, remedy)
}

// ask runs an input on the loop and waits until its outcome is committed.
func (e *Engine) ask(ctx context.Context, l *loop, id string, in func(*step, reply)) error {
	done := make(chan error, 1)
	l.inbox.post(func(s *step) { in(s, reply{taskID: id, send: func(err error) { done <- err }}) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done(): // stopped, or the engine is closed
		return berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding)
	}
}
