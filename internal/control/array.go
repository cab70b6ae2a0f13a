package control

import (
	"context"
	"iter"

	"github.com/berth-run/berth"
)

func (h *Host) SubmitArray(ctx context.Context, s berth.ArraySubmission) (berth.Array, error) {
	caller := h.caller(ctx)
	entry, among, err := h.accept(ctx, caller, &s.Spec, s.Validate)
	if err != nil {
		return berth.Array{}, err
	}
	s.Key, s.Among = ownKey(caller, s.Key), among
	return h.engine.SubmitArray(ctx, caller.Name, shareOf(&entry, caller.Name, s.Spec.Labels), s)
}

func (h *Host) Array(ctx context.Context, id string) (berth.Array, error) {
	h.settle(ctx)
	return h.visibleArray(ctx, id)
}

// visibleArray returns an array if the caller may see it. To everybody else it
// is as if there were none.
func (h *Host) visibleArray(ctx context.Context, id string) (berth.Array, error) {
	array, err := h.store.Array(ctx, id)
	if err != nil {
		return berth.Array{}, err
	}
	if caller := h.caller(ctx); !caller.MaySee(ofArray(&array)) {
		return berth.Array{}, berth.NoSuchArray(id)
	}
	return array, nil
}

// ofArray is what rights are asked for with: those to an array are those to its tasks.
func ofArray(a *berth.Array) *berth.Task {
	return &berth.Task{Owner: a.Owner, Infrastructure: a.Infrastructure}
}

func (h *Host) Arrays(ctx context.Context, q berth.ArrayQuery) (berth.ArrayPage, error) {
	h.settle(ctx)
	return h.store.Arrays(ctx, q, h.caller(ctx))
}

func (h *Host) WatchArray(ctx context.Context, id string) iter.Seq2[berth.Array, error] {
	return func(yield func(berth.Array, error) bool) {
		if _, err := h.visibleArray(ctx, id); err != nil {
			yield(berth.Array{}, err)
			return
		}
		h.engine.WatchArray(ctx, id)(yield)
	}
}

func (h *Host) CancelArray(ctx context.Context, id string) (berth.Array, error) {
	array, err := h.visibleArray(ctx, id)
	if err != nil {
		return array, err
	}
	if caller := h.caller(ctx); !caller.MayCancel(ofArray(&array)) {
		return berth.Array{}, needs(caller, berth.RoleWrite, "cancel tasks")
	}
	return h.engine.CancelArray(ctx, id)
}

func (h *Host) RetryArray(ctx context.Context, id, key string) (berth.Array, error) {
	array, err := h.Array(ctx, id)
	if err != nil {
		return array, err
	}
	if ended := array.Ended(); ended < array.Size {
		return berth.Array{}, berth.Errorf(berth.CodeConflict, "%d of the %d tasks of array %s have not ended: wait for them, or cancel the array, and retry it then", array.Size-ended, array.Size, id)
	}
	s := berth.ArraySubmission{Key: key, Spec: array.Spec, RetryOf: id}
	items := false
	for after := -1; ; {
		const page = 1000
		failed, err := h.store.ArrayItems(ctx, id, []berth.TaskState{berth.StateFailed, berth.StateLost, berth.StateCancelled}, after, page)
		if err != nil {
			return berth.Array{}, err
		}
		for _, item := range failed {
			after = item.Index
			s.Indices, s.Items = append(s.Indices, item.Index), append(s.Items, item.Item)
			items = items || item.Item != ""
		}
		if len(failed) < page {
			break
		}
	}
	if !items {
		s.Items = nil
	}
	if len(s.Indices) == 0 {
		return berth.Array{}, berth.Errorf(berth.CodeConflict, "all %d tasks of array %s have succeeded: there is nothing to retry", array.Size, id)
	}
	return h.SubmitArray(ctx, s)
}
