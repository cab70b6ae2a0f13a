// Package runs executes workflows: it goes on with the runs that a store has,
// has their calls done as tasks, and keeps what came of each, so that a run goes
// on in the next process where this one ends.
package runs

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// Store keeps runs; see package store.
type Store interface {
	Run(ctx context.Context, id string) (berth.Run, error)
	RunRecord(ctx context.Context, id string) (berth.RunRecord, error)
	CommitRun(ctx context.Context, lease berth.Lease, id string, changed *berth.Run, calls []berth.RunCall) error
	LiveRuns(ctx context.Context, infrastructure string) ([]string, error)
	RunCalls(ctx context.Context, run string, after int64, limit int) ([]berth.RunCall, error)
	CachedCall(ctx context.Context, owner, digest string) (berth.CachedCall, error)
	DropCachedCall(ctx context.Context, id string) error
	PutCachedCall(ctx context.Context, call *berth.CachedCall) error
}

// Tasks does the calls of runs; it is a berth.Service.
type Tasks interface {
	SubmitTask(ctx context.Context, submission berth.Submission) (berth.Task, error)
	WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error]
	TaskLogs(ctx context.Context, id string, query berth.LogQuery) iter.Seq2[berth.LogChunk, error]
	Tasks(ctx context.Context, query berth.TaskQuery) (berth.TaskPage, error)
	CancelTask(ctx context.Context, id string) (berth.Task, error)
}

// Executor goes on with the runs of the infrastructures that it was given: a run
// has one that it belongs to, so that of several servers one executes it.
type Executor struct {
	store Store
	tasks Tasks
	files Files
	lease func(infrastructure string) (berth.Lease, error)
	log   *slog.Logger
	ctx   context.Context
	close context.CancelCauseFunc
	wg    sync.WaitGroup

	mu    sync.Mutex
	taken map[string]bool // infrastructures
	runs  map[string]*execution
}

// Why an execution ends before its run.
var (
	errDropped   = errors.New("the run goes on elsewhere")
	errCancelled = errors.New("the run was cancelled")
)

// New returns an Executor that executes nothing yet. lease gives the lease that
// is to be held for what is stored of an infrastructure's runs; the zero one: none.
func New(store Store, tasks Tasks, files Files, lease func(infrastructure string) (berth.Lease, error), log *slog.Logger) *Executor {
	e := &Executor{store: store, tasks: tasks, files: files, lease: lease, log: log, taken: map[string]bool{}, runs: map[string]*execution{}}
	e.ctx, e.close = context.WithCancelCause(context.Background())
	return e
}

// Take goes on with the runs of an infrastructure.
func (e *Executor) Take(infrastructure string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.taken[infrastructure] || e.ctx.Err() != nil {
		return
	}
	e.taken[infrastructure] = true
	e.wg.Go(func() {
		ids, err := e.store.LiveRuns(e.ctx, infrastructure)
		for wait := pauses(e.ctx); err != nil; ids, err = e.store.LiveRuns(e.ctx, infrastructure) {
			if e.ctx.Err() == nil {
				e.log.Error("cannot see which runs there are; trying again", "infrastructure", infrastructure, "error", err)
			}
			if !wait() {
				return
			}
		}
		for _, id := range ids {
			e.Begin(id, infrastructure)
		}
	})
}

// Drop leaves the runs of an infrastructure as they are: another goes on with them.
func (e *Executor) Drop(infrastructure string) {
	e.mu.Lock()
	delete(e.taken, infrastructure)
	var dropped []*execution
	for _, x := range e.runs {
		if x.infrastructure == infrastructure {
			dropped = append(dropped, x)
			x.end(errDropped)
		}
	}
	e.mu.Unlock()
	for _, x := range dropped {
		<-x.done
	}
}

// Begin executes a run that is stored, if its infrastructure was taken.
func (e *Executor) Begin(id, infrastructure string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.taken[infrastructure] || e.runs[id] != nil || e.ctx.Err() != nil {
		return
	}
	x := newExecution(e, id, infrastructure)
	e.runs[id] = x
	e.wg.Go(func() {
		defer func() {
			e.mu.Lock()
			delete(e.runs, id)
			e.mu.Unlock()
			close(x.done)
			x.note(nil) // who watches looks at the store
		}()
		x.execute()
	})
}

// Cancel ends a run, for which that it is to be cancelled is stored.
func (e *Executor) Cancel(id string) {
	if x := e.execution(id); x != nil {
		x.end(errCancelled)
	}
}

// Close leaves all runs as they are.
func (e *Executor) Close() {
	e.mu.Lock()
	e.close(errDropped)
	e.mu.Unlock()
	e.wg.Wait()
}

func (e *Executor) execution(id string) *execution {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[id]
}

// Watch yields a run as it is and then each time that it changed, until it has
// ended. Changes in quick succession may be yielded as one.
func (e *Executor) Watch(ctx context.Context, id string) iter.Seq2[berth.Run, error] {
	return func(yield func(berth.Run, error) bool) {
		for {
			x := e.execution(id)
			changed := x.changes()
			run, err := x.current(ctx, e.store, id)
			if !yield(run, err) || err != nil || run.State.Terminal() {
				return
			}
			if err := e.wait(ctx, changed); err != nil {
				yield(berth.Run{}, err)
				return
			}
		}
	}
}

// Calls yields the calls of a run in the order in which they began, and with
// follow each once more that has changed, until the run has ended.
func (e *Executor) Calls(ctx context.Context, id string, follow bool) iter.Seq2[berth.RunCall, error] {
	return func(yield func(berth.RunCall, error) bool) {
		seen := map[string]int64{} // versions, by key
		for {
			x := e.execution(id)
			changed := x.changes()
			run, err := x.current(ctx, e.store, id)
			if err != nil {
				yield(berth.RunCall{}, err)
				return
			}
			if x != nil {
				for _, call := range x.changedCalls(seen) {
					if !yield(call, nil) {
						return
					}
				}
			} else if !e.stored(ctx, id, seen, yield) {
				return
			}
			if !follow || run.State.Terminal() {
				return
			}
			if err := e.wait(ctx, changed); err != nil {
				yield(berth.RunCall{}, err)
				return
			}
		}
	}
}

// stored yields calls of a run that nobody executes here, but for those that
// were yielded as they are.
func (e *Executor) stored(ctx context.Context, id string, seen map[string]int64, yield func(berth.RunCall, error) bool) bool {
	for after := int64(0); ; {
		const page = 500
		calls, err := e.store.RunCalls(ctx, id, after, page)
		if err != nil {
			yield(berth.RunCall{}, err)
			return false
		}
		for _, call := range calls {
			after = call.Seq
			if version := storedVersion(&call); seen[call.Key] != version {
				seen[call.Key] = version
				if !yield(call, nil) {
					return false
				}
			}
		}
		if len(calls) < page {
			return true
		}
	}
}

// storedVersion tells how a stored call stands from how it stood before.
func storedVersion(c *berth.RunCall) int64 {
	if c.State.Ended() {
		return -2*int64(c.Generation) - 2
	}
	return -2*int64(c.Generation) - 1
}

// breath is between two looks of somebody who watches: a run of thousands of
// calls changes all the time.
const breath = 20 * time.Millisecond

// wait waits for a change; an error says that there is nobody any more to tell of one.
func (e *Executor) wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		sleep(ctx, breath)
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-e.ctx.Done():
		return berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding)
	}
}
