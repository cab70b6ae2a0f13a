package engine

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// Leases says for how long an infrastructure may be acted on without asking
// again, where several engines share a store; zero or less: not any more. What
// such an engine commits is checked by its store.
type Leases interface {
	Left(infrastructure string) time.Duration
}

// Under lets an engine act under leases alone. It is called before Start.
func (e *Engine) Under(leases Leases) { e.leases = leases }

// Stop ends the reconciling of an infrastructure, and returns when nothing is
// done for it any more. Its tasks and pods stay as they are: whoever starts it
// next, here or elsewhere, takes them up from the store.
func (e *Engine) Stop(name string) {
	e.mu.Lock()
	l := e.loops[name]
	delete(e.loops, name)
	e.mu.Unlock()
	if l == nil {
		return
	}
	l.cancel()
	l.done.Wait()
	e.hub.forget(name)
}

// works counts work that is under way for a loop, until done is called.
func (l *loop) works(also *sync.WaitGroup) (done func()) {
	also.Add(1)
	l.done.Add(1)
	return func() {
		l.done.Done()
		also.Done()
	}
}

type ofKey struct{}

// InfrastructureOf names the infrastructure whose loop makes a call, of the
// Store above all; empty where none does.
func InfrastructureOf(ctx context.Context) string {
	name, _ := ctx.Value(ofKey{}).(string)
	return name
}

// mayAct reports whether the infrastructure is this engine's to act on.
func (l *loop) mayAct() bool {
	return l.engine.leases == nil || l.engine.leases.Left(l.name) > 0
}

// whileHeld returns a context for one call that changes something: it ends when
// this engine may not act any more. ok is false when that is over.
func (l *loop) whileHeld(ctx context.Context) (held context.Context, cancel context.CancelFunc, ok bool) {
	if l.engine.leases == nil {
		return ctx, func() {}, true
	}
	left := l.engine.leases.Left(l.name)
	if left <= 0 {
		return ctx, func() {}, false
	}
	held, cancel = context.WithCancel(ctx)
	go func() { // a call may take longer than a lease, which is renewed meanwhile
		for left > 0 && sleep(held, left) {
			left = l.engine.leases.Left(l.name)
		}
		cancel()
	}()
	return held, cancel, true
}

// errNotHeld ends the copying of a log that is another engine's to store.
var errNotHeld = berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrFenced)

// heldStream gives nothing that came when the infrastructure wasn't ours any more.
type heldStream struct {
	io.ReadCloser
	loop *loop
}

func (h heldStream) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if !h.loop.mayAct() {
		return 0, errNotHeld
	}
	return n, err
}
