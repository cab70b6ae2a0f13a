package runs

import (
	"context"
	"errors"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// write stores what changes, one commit after the other with all that has
// changed meanwhile, until ctx ends.
func (x *execution) write(ctx context.Context) {
	for {
		select {
		case <-x.wake:
		case <-ctx.Done():
			return
		}
		calls, changed, stored := x.takeChanges()
		if len(calls) == 0 && changed == nil {
			continue
		}
		for wait := pauses(ctx); ; {
			lease, err := x.lease(x.infrastructure)
			if err == nil {
				err = x.store.CommitRun(x.Executor.ctx, lease, x.id, changed, calls)
			}
			if err == nil {
				crash.Point("runs.kept")
				close(stored)
				break
			}
			if errors.Is(err, berth.ErrFenced) {
				x.end(errDropped)
				return
			}
			x.log.Error("cannot keep what a run does; trying again", "run", x.id, "error", err)
			if !wait() {
				x.giveBack(calls, changed)
				return
			}
		}
	}
}

// takeChanges takes what is to be stored, and a channel to close once it is.
func (x *execution) takeChanges() ([]berth.RunCall, *berth.Run, chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var changed *berth.Run
	if x.edited {
		run := x.run
		changed, x.edited = &run, false
	}
	stored := x.stored
	if stored == nil {
		stored = make(chan struct{})
	}
	x.stored = nil
	return x.takeDirtyLocked(), changed, stored
}

// giveBack takes back what could not be stored.
func (x *execution) giveBack(calls []berth.RunCall, changed *berth.Run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.edited = x.edited || changed != nil
	for i := range calls {
		x.dirty[x.calls[calls[i].Key]] = true
	}
}

func (x *execution) takeDirty() []berth.RunCall {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.takeDirtyLocked()
}

func (x *execution) takeDirtyLocked() []berth.RunCall {
	calls := make([]berth.RunCall, 0, len(x.dirty))
	for c := range x.dirty {
		calls = append(calls, c.RunCall)
	}
	clear(x.dirty)
	return calls
}

// kept waits until what has changed by now is stored.
func (x *execution) kept(ctx context.Context, change func()) error {
	x.mu.Lock()
	change()
	if x.stored == nil {
		x.stored = make(chan struct{})
	}
	stored := x.stored
	x.announce()
	x.mu.Unlock()
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
