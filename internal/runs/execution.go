package runs

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
	"github.com/berth-run/berth/internal/workflow"
)

// execution is one run that goes on here.
type execution struct {
	*Executor
	id, infrastructure string
	life               context.Context // of the execution
	end                context.CancelCauseFunc
	done               chan struct{}

	mu       sync.Mutex
	run      berth.Run // its zero value until it was read
	caller   berth.Caller
	packages []berth.Package
	calls    map[string]*call
	origins  map[string]*origin // by path: of what a call gave
	seq      int64
	version  int64
	dirty    map[*call]bool // not stored as it is
	edited   bool           // the run itself isn't
	stored   chan struct{}  // closed once what is dirty by now is stored
	wake     chan struct{}
	watchers chan struct{} // closed at the next change
}

// call is one call of a run.
type call struct {
	berth.RunCall
	version int64
}

func newExecution(e *Executor, id, infrastructure string) *execution {
	x := &execution{
		Executor: e, id: id, infrastructure: infrastructure, done: make(chan struct{}),
		calls: map[string]*call{}, origins: map[string]*origin{}, dirty: map[*call]bool{}, wake: make(chan struct{}, 1), watchers: make(chan struct{}),
	}
	x.life, x.end = context.WithCancelCause(e.ctx)
	return x
}

// execute goes on with the run until it has ended, or somebody else is to.
func (x *execution) execute() {
	defer x.end(nil)
	for wait := pauses(x.Executor.ctx); ; {
		err := x.once()
		cause := context.Cause(x.life)
		if err == nil || errors.Is(cause, errDropped) || errors.Is(err, berth.ErrFenced) {
			return
		}
		x.log.Error("a run cannot go on; trying again", "run", x.id, "error", err)
		x.waits(err)
		if !wait() {
			return
		}
	}
}

// waits says why the run stands still.
func (x *execution) waits(err error) {
	reason := "it waits: " + err.Error()
	x.note(func() { x.run.Reason = &reason })
}

// once replays the run and goes on with it to its end. An error is of the world,
// not of the program.
func (x *execution) once() error {
	ctx := x.Executor.ctx // what is stored is stored also of a run that is cancelled
	record, err := x.store.RunRecord(ctx, x.id)
	if err != nil || record.Run.State.Terminal() {
		return err
	}
	history, err := x.read(ctx, &record)
	if err != nil {
		return err
	}
	if record.Run.CancelledAt != nil {
		x.end(errCancelled)
	}
	writing, ended := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() { defer close(written); x.write(writing) }()
	stop := func() { ended(); <-written }
	defer stop()
	value, err := x.replay(&record, history)
	crash.Point("runs.replayed")
	cause := context.Cause(x.life)
	if errors.Is(cause, errDropped) {
		return cause
	}
	final := x.outcome(value, err, cause)
	if final == nil {
		return err
	}
	if final.State != berth.RunSucceeded { // then calls may not have been waited for
		if err := x.cancelTasks(ctx); err != nil {
			return err
		}
	}
	stop()
	return x.finish(ctx, final)
}

// read takes in what was stored of the run, and returns the calls that answer.
func (x *execution) read(ctx context.Context, record *berth.RunRecord) (map[string]workflow.Record, error) {
	history := map[string]workflow.Record{}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.run, x.caller, x.packages, x.seq = record.Run, record.Caller, record.Packages, 0
	x.run.Reason = nil
	clear(x.calls)
	clear(x.origins)
	clear(x.dirty)
	texts := unique{}
	for {
		const page = 1000
		calls, err := x.store.RunCalls(ctx, x.id, x.seq, page)
		if err != nil {
			return nil, err
		}
		for _, stored := range calls {
			x.seq = stored.Seq
			x.version++
			texts.share(&stored)
			x.calls[stored.Key] = &call{stored, x.version}
			x.findFiles(&stored)
			if answers(&stored, record.Run.Resumed) {
				history[stored.Key] = workflow.Record{Digest: stored.Digest, Value: stored.Result, Failure: stored.Failure}
			}
		}
		if len(calls) < page {
			x.announce()
			return history, nil
		}
	}
}

// unique are texts that many calls of a run have in common, each kept once.
type unique map[string]*string

func (u unique) of(text string) *string {
	if u[text] == nil {
		u[text] = &text
	}
	return u[text]
}

func (u unique) share(c *berth.RunCall) {
	c.Kind, c.Name, c.At = *u.of(c.Kind), *u.of(c.Name), *u.of(c.At)
	if c.Infrastructure != nil {
		c.Infrastructure = u.of(*c.Infrastructure)
	}
}

// answers reports whether a call that was done isn't done again: one that failed
// is where the run was resumed since, unless the program went on with its failure.
func answers(c *berth.RunCall, generation int) bool {
	switch c.State {
	case berth.CallSucceeded:
		return true
	case berth.CallFailed, berth.CallCancelled:
		return c.Failure != nil && (c.Handled || c.Generation == generation)
	}
	return false
}

// replay runs the program.
func (x *execution) replay(record *berth.RunRecord, history map[string]workflow.Record) (json.RawMessage, error) {
	if errors.Is(context.Cause(x.life), errCancelled) {
		return nil, errCancelled // what has begun is seen to without it
	}
	program, err := workflow.Load(workflow.Files(record.Source.Files), record.Source.Main)
	if err != nil {
		return nil, &berth.RunError{Message: err.Error(), Stack: []berth.Frame{}}
	}
	printed := 0
	runner := &workflow.Runner{
		Program: program, Packages: pinned(record.Packages), Host: &host{x}, History: history, Arguments: record.Run.Arguments, OnError: record.Run.OnError,
		Limits: limits(&record.Run), Handled: x.handled,
		Print: func(text string) {
			printed++
			x.print(printed, text)
		},
	}
	if record.Run.Resumed > 0 {
		runner.Edited = x.diverged
	}
	return runner.Run(x.life)
}

// limits are those of a run, counted from when it was begun or resumed.
func limits(r *berth.Run) workflow.Limits {
	from := r.CreatedAt
	if r.ResumedAt != nil {
		from = *r.ResumedAt
	}
	return workflow.Limits{Steps: uint64(r.Limits.Steps), Wall: r.Limits.Timeout, Spent: max(time.Since(from), 0)}
}

// pinned are the packages that a run has fixed.
func pinned(packages []berth.Package) workflow.Lookup {
	return func(name, version string) (berth.Package, error) {
		for _, p := range packages {
			if p.Name == name && (version == "" || p.Version == version) {
				return p, nil
			}
		}
		return berth.Package{}, berth.Errorf(berth.CodeNotFound, "the run has no package %s: it was not used when it began", name)
	}
}

// outcome is the run as it has ended; nil: it has not.
func (x *execution) outcome(value json.RawMessage, err, cause error) *berth.Run {
	x.mu.Lock()
	defer x.mu.Unlock()
	final := x.run
	now := time.Now().UTC()
	final.FinishedAt, final.Reason, final.Error = &now, nil, nil
	var failed *berth.RunError
	var diverged *workflow.Diverged
	switch {
	case errors.Is(cause, errCancelled):
		final.State = berth.RunCancelled
		reason := "cancelled"
		final.Reason = &reason
	case err == nil:
		final.State, final.Result = berth.RunSucceeded, value
	case errors.As(err, &failed):
		final.State, final.Error = berth.RunFailed, failed
	case errors.As(err, &diverged):
		final.State, final.Error = berth.RunFailed, &berth.RunError{Message: diverged.Error(), Stack: []berth.Frame{}}
	default:
		return nil
	}
	if final.Error != nil {
		final.Reason = &final.Error.Message
	}
	return &final
}

// finish stores that the run has ended, with all that was not stored yet.
func (x *execution) finish(ctx context.Context, final *berth.Run) error {
	x.note(func() {
		for _, c := range x.calls {
			if !c.State.Ended() {
				c.State, c.EndedAt = berth.CallCancelled, final.FinishedAt
				x.changed(c)
			}
		}
	})
	lease, err := x.lease(x.infrastructure)
	if err != nil {
		return err
	}
	if err := x.store.CommitRun(ctx, lease, x.id, final, x.takeDirty()); err != nil {
		return err
	}
	crash.Point("runs.finished")
	x.note(func() { x.run = *final })
	return nil
}

// cancelTasks cancels the tasks of the run's calls that have not ended, and
// waits until they have.
func (x *execution) cancelTasks(ctx context.Context) error {
	ctx = berth.WithCaller(ctx, x.caller)
	var live []string
	q := berth.TaskQuery{Labels: map[string]string{berth.LabelRun: x.id}, States: []berth.TaskState{berth.StateQueued, berth.StateLaunching, berth.StateRunning}, Limit: 500}
	for {
		page, err := x.tasks.Tasks(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Tasks {
			live = append(live, page.Tasks[i].ID)
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	for _, id := range live {
		if _, err := x.tasks.CancelTask(ctx, id); err != nil {
			return err
		}
	}
	for _, id := range live {
		for _, err := range x.tasks.WatchTask(ctx, id) {
			if err != nil {
				return err
			}
		}
	}
	return nil
}
