package engine

import (
	"context"
	"iter"
	"reflect"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

// arrayPage is how many tasks of an array are cancelled by one commit.
const arrayPage = 500

// SubmitArray stores an array on an infrastructure that was started, with all
// its tasks or none. share is what its tasks share room as.
func (e *Engine) SubmitArray(ctx context.Context, owner, share string, submission berth.ArraySubmission) (berth.Array, error) {
	l := e.loop(submission.Spec.Infrastructure)
	if l == nil {
		return berth.Array{}, berth.Errorf(berth.CodeNotFound, "infrastructure %q is not known", submission.Spec.Infrastructure)
	}
	if submission.Key == "" {
		submission.Key = xid.New().String()
	}
	done, err := e.alone(ctx, "array/"+submission.Key)
	if err != nil {
		return berth.Array{}, err
	}
	defer done()
	if array, err := e.store.ArrayByKey(ctx, submission.Key); err == nil || berth.CodeOf(err) != berth.CodeNotFound {
		return array, err
	}
	if err := e.admissible(ctx, l); err != nil {
		return berth.Array{}, err
	}
	now := e.now()
	array := berth.Array{
		ID: berth.NewArrayID(xid.New().String()), Infrastructure: submission.Spec.Infrastructure, Image: submission.Spec.Image,
		Size: len(submission.Indices), CreatedAt: now.UTC(), Owner: owner, Spec: submission.Spec,
	}
	if submission.Spec.Name != "" {
		array.Name = &submission.Spec.Name
	}
	if submission.RetryOf != "" {
		array.RetryOf = &submission.RetryOf
	}
	n := 0
	next := func() (*berth.Change, error) {
		if n == array.Size {
			return nil, nil
		}
		item := submission.Item(array.ID, n)
		id, err := e.ids.next(ctx, e.store)
		if err != nil {
			return nil, err
		}
		n++
		life, events := berth.NewLife(id, owner, array.ID+"/"+id, submission.Spec.ForItem(item), now)
		life.Share, life.Among, life.Task.Array = share, submission.Among, &item
		return &berth.Change{Life: life, Events: events, New: true}, nil
	}
	first, err := next()
	if err != nil {
		return berth.Array{}, err
	}
	if !submission.NoPreflight {
		if err := e.preflight(ctx, l, first.Life); err != nil {
			return berth.Array{}, err
		}
	}
	rest := next
	next = func() (*berth.Change, error) {
		next = rest
		return first, nil
	}
	if err := e.store.AddArray(ctx, submission.Key, &array, func() (*berth.Change, error) { return next() }); err != nil {
		return berth.Array{}, err
	}
	l.inbox.post(func(s *step) {
		s.unended += array.Size
		s.queued += array.Size
		s.queue.stored(first.Life)
	})
	return e.store.Array(ctx, array.ID)
}

// CancelArray stores that the tasks of an array are to be cancelled, which is
// done behind it.
func (e *Engine) CancelArray(ctx context.Context, id string) (berth.Array, error) {
	array, err := e.store.Array(ctx, id)
	if err != nil || array.CancelledAt != nil || array.Ended() == array.Size {
		return array, err
	}
	l := e.loop(array.Infrastructure)
	if l == nil {
		return array, berth.Errorf(berth.CodeNotFound, "infrastructure %q of array %s is no longer in infra.yml: add it again to cancel its tasks", array.Infrastructure, id)
	}
	if err := e.store.CancelArray(ctx, id, e.now()); err != nil {
		return array, err
	}
	e.cancelTasks(l, id)
	e.hub.touch(id)
	return e.store.Array(ctx, id)
}

// cancelTasks cancels the tasks of an array, a page with each commit.
func (e *Engine) cancelTasks(l *loop, array string) {
	done := l.works(&e.wg)
	go func() {
		defer done()
		for after := -1; l.ctx.Err() == nil; {
			ids, last, err := e.store.ArrayTasks(l.ctx, array, []berth.TaskState{berth.StateQueued, berth.StateLaunching, berth.StateRunning}, after, arrayPage)
			if err == nil && len(ids) == 0 {
				return
			}
			var elsewhere []string // tasks that moved to another infrastructure
			if err == nil {
				err = e.ask(l.ctx, l, array, func(s *step, r reply) {
					s.replies = append(s.replies, r)
					for _, id := range ids {
						if !s.cancel(l.ctx, id) {
							elsewhere = append(elsewhere, id)
						}
					}
				})
			}
			for _, id := range elsewhere {
				if err == nil {
					_, err = e.Cancel(l.ctx, id)
				}
			}
			if err != nil {
				e.log.Error("cannot cancel tasks of an array; trying again", "array", array, "error", err)
				if !sleep(l.ctx, time.Second) {
					return
				}
				continue
			}
			after = last
		}
	}()
}

// arrayPace is how often the states of an array's tasks are counted for those
// who watch it.
const arrayPace = 250 * time.Millisecond

// WatchArray yields an array as it is, and when the states of its tasks have
// changed, until all of them have ended.
func (e *Engine) WatchArray(ctx context.Context, id string) iter.Seq2[berth.Array, error] {
	return func(yield func(berth.Array, error) bool) {
		changed, stop := e.hub.watch(id)
		defer stop()
		var last berth.Array
		for {
			array, err := e.store.Array(ctx, id)
			if err != nil || !reflect.DeepEqual(array, last) {
				if !yield(array, err) || err != nil || array.Ended() == array.Size {
					return
				}
				last = array
			}
			select {
			case <-changed:
				sleep(ctx, arrayPace) // whatever else changes is counted with it
			case <-ctx.Done():
				yield(berth.Array{}, ctx.Err())
				return
			case <-e.ctx.Done():
				yield(berth.Array{}, berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding))
				return
			}
		}
	}
}
