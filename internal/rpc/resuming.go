package rpc

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

// Join returns the Service to use, in place of one that is gone; nil at first.
// It waits for as long as there is hope.
type Join func(ctx context.Context, gone berth.Service) (berth.Service, error)

// Resuming is a Service whose calls and sequences outlive those who serve
// them: a call that found its server gone (ErrGone) is made again to the next
// one, which is no harm as each is idempotent, and a sequence goes on behind
// what it yielded. Whoever embeds it closes what Join opened.
type Resuming struct {
	join     Join
	patience time.Duration // bounds how long one goes away after the other; 0: for ever
}

// NewResuming returns a Service on what join gives. Patience bounds how long
// servers may come and go without a single answer; 0 is for ever.
func NewResuming(join Join, patience time.Duration) *Resuming {
	return &Resuming{join: join, patience: patience}
}

// attempts paces the tries of one call.
type attempts struct {
	first time.Time
	count int
}

// again waits before the next try, or returns the error to give up with.
func (a *attempts) again(ctx context.Context, patience time.Duration, err error) error {
	now := time.Now()
	if a.count == 0 {
		a.first = now
	}
	if patience > 0 && now.Sub(a.first) > patience {
		return err
	}
	a.count++
	if a.count == 1 {
		return nil // join waits for who comes next; only one that goes again is waited for here
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(time.Millisecond<<min(a.count, 10), time.Second)):
		return nil
	}
}

// do makes a call, and makes it again with the next server when this one goes away.
func do[T any](ctx context.Context, r *Resuming, call func(berth.Service) (T, error)) (T, error) {
	var none T
	var gone berth.Service
	var tries attempts
	for {
		service, err := r.join(ctx, gone)
		if err != nil {
			return none, err
		}
		value, err := call(service)
		if !errors.Is(err, ErrGone) {
			return value, err
		}
		if err := tries.again(ctx, r.patience, err); err != nil {
			return none, err
		}
		gone = service
	}
}

// sequence yields what a sequence gives and goes on with the next server where
// the one before ended; open is asked to go on behind what was yielded.
func sequence[T any](ctx context.Context, r *Resuming, open func(berth.Service) iter.Seq2[T, error], yielded func(T)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		var gone berth.Service
		var tries attempts
		for {
			service, err := r.join(ctx, gone)
			if err != nil {
				yield(none, err)
				return
			}
			var cut error
			for value, err := range open(service) {
				if errors.Is(err, ErrGone) {
					cut = err
					break
				}
				if err == nil {
					tries = attempts{}
					yielded(value)
				}
				if !yield(value, err) || err != nil {
					return
				}
			}
			if cut == nil {
				return
			}
			if err := tries.again(ctx, r.patience, cut); err != nil {
				yield(none, err)
				return
			}
			gone = service
		}
	}
}

// tell makes a call that answers nothing.
func tell(ctx context.Context, r *Resuming, call func(berth.Service) error) error {
	_, err := do(ctx, r, func(s berth.Service) (struct{}, error) { return struct{}{}, call(s) })
	return err
}

func (r *Resuming) Info(ctx context.Context) (berth.Info, error) {
	return do(ctx, r, func(s berth.Service) (berth.Info, error) { return s.Info(ctx) })
}

func (r *Resuming) SubmitTask(ctx context.Context, submission berth.Submission) (berth.Task, error) {
	if submission.Key == "" {
		submission.Key = xid.New().String() // here, so that a second try is the same submission
	}
	return do(ctx, r, func(s berth.Service) (berth.Task, error) { return s.SubmitTask(ctx, submission) })
}

func (r *Resuming) Task(ctx context.Context, id string) (berth.Task, error) {
	return do(ctx, r, func(s berth.Service) (berth.Task, error) { return s.Task(ctx, id) })
}

func (r *Resuming) Tasks(ctx context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	return do(ctx, r, func(s berth.Service) (berth.TaskPage, error) { return s.Tasks(ctx, q) })
}

func (r *Resuming) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.Task, error] { return s.WatchTask(ctx, id) }, func(berth.Task) {})
}

func (r *Resuming) TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[berth.Event, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.Event, error] { return s.TaskEvents(ctx, id, after, follow) },
		func(e berth.Event) { after = e.Seq })
}

func (r *Resuming) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.LogChunk, error] { return s.TaskLogs(ctx, id, q) },
		func(c berth.LogChunk) { q.Attempt, q.Offset, q.Tail = c.Attempt, c.Offset, 0 })
}

func (r *Resuming) TaskMetrics(ctx context.Context, id string, q berth.MetricsQuery) (berth.TaskMetrics, error) {
	return do(ctx, r, func(s berth.Service) (berth.TaskMetrics, error) { return s.TaskMetrics(ctx, id, q) })
}

func (r *Resuming) CancelTask(ctx context.Context, id string) (berth.Task, error) {
	return do(ctx, r, func(s berth.Service) (berth.Task, error) { return s.CancelTask(ctx, id) })
}

func (r *Resuming) Package(ctx context.Context, infrastructure, name, version string) (berth.Package, error) {
	return do(ctx, r, func(s berth.Service) (berth.Package, error) { return s.Package(ctx, infrastructure, name, version) })
}

func (r *Resuming) Infrastructures(ctx context.Context) ([]berth.Infrastructure, error) {
	return do(ctx, r, func(s berth.Service) ([]berth.Infrastructure, error) { return s.Infrastructures(ctx) })
}

func (r *Resuming) CheckInfrastructure(ctx context.Context, name string) (berth.InfrastructureCheck, error) {
	return do(ctx, r, func(s berth.Service) (berth.InfrastructureCheck, error) { return s.CheckInfrastructure(ctx, name) })
}

func (r *Resuming) FormatDFS(ctx context.Context, format berth.DFSFormat) (berth.DFSVolume, error) {
	return do(ctx, r, func(s berth.Service) (berth.DFSVolume, error) { return s.FormatDFS(ctx, format) })
}

func (r *Resuming) AddInfrastructure(ctx context.Context, source berth.InfrastructureSource) error {
	return tell(ctx, r, func(s berth.Service) error { return s.AddInfrastructure(ctx, source) })
}

func (r *Resuming) RemoveInfrastructure(ctx context.Context, name string, force bool) error {
	return tell(ctx, r, func(s berth.Service) error { return s.RemoveInfrastructure(ctx, name, force) })
}

func (r *Resuming) CreateToken(ctx context.Context, request berth.TokenRequest) (berth.Token, error) {
	if request.Key == "" {
		request.Key = xid.New().String() // here, so that a second try makes no second token
	}
	return do(ctx, r, func(s berth.Service) (berth.Token, error) { return s.CreateToken(ctx, request) })
}

func (r *Resuming) Tokens(ctx context.Context) ([]berth.Token, error) {
	return do(ctx, r, func(s berth.Service) ([]berth.Token, error) { return s.Tokens(ctx) })
}

func (r *Resuming) RevokeToken(ctx context.Context, idOrName string) error {
	return tell(ctx, r, func(s berth.Service) error { return s.RevokeToken(ctx, idOrName) })
}
