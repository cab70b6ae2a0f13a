package engine

import (
	"context"
	"errors"
	"time"

	"github.com/berth-run/berth"
)

// preflightLimit is how long a preflight may take: what takes longer is given
// up, and the create decides.
const preflightLimit = 2 * time.Second

// preflightAgain is the pause until a missing right is asked for once more: an
// API server that has just started forbids everything.
const preflightAgain = 500 * time.Millisecond

// preflight refuses a submission that its infrastructure would never take, by
// the pod of its first attempt. Whatever passes by itself, such as a quota in
// use by others, is no reason; neither is what nobody can tell now.
func (e *Engine) preflight(ctx context.Context, l *loop, life *berth.Life) error {
	refusal := e.askPreflight(ctx, l, life)
	if refusal == nil || !refusal.Hopeless || refusal.Diagnosis == nil {
		return nil
	}
	return berth.Refused(l.name, refusal.Diagnosis)
}

// askPreflight returns why the pod of a life's first attempt would not be
// accepted; nil where it would, and where nobody can tell.
func (e *Engine) askPreflight(ctx context.Context, l *loop, life *berth.Life) *Refusal {
	current := l.current.Load()
	if current == nil || l.health.Load().State != berth.InfraReady {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, preflightLimit)
	defer cancel()
	order := Order{Instance: e.store.Instance(), TaskID: life.Task.ID, Attempt: 1, Pod: berth.PodName(life.Task.ID, 1, 0), Spec: life.Task.Spec}
	err := l.prepare(ctx, &order)
	if err == nil {
		err = current.driver.Preflight(ctx, order)
	}
	var refusal *Refusal
	for range forbiddenAgain {
		if !errors.As(err, &refusal) || refusal.Kind != RefusedForbidden || !sleep(ctx, preflightAgain) {
			break
		}
		err = current.driver.Preflight(ctx, order)
	}
	if !errors.As(err, &refusal) || ctx.Err() != nil {
		return nil
	}
	return refusal
}
