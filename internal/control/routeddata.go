package control

import (
	"context"
	"iter"

	"github.com/berth-run/berth"
)

// A shared filesystem is served where its infrastructure is reconciled.

func (r *routed) ListData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataEntry, error] {
	return routedData(ctx, r, &q, func(s berth.Service) iter.Seq2[berth.DataEntry, error] { return s.ListData(ctx, q) })
}

func (r *routed) GetData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataChunk, error] {
	if _, is := berth.ParseBlob(q.Path); is {
		return r.Host.GetData(ctx, q) // servers share the registry
	}
	return routedData(ctx, r, &q, func(s berth.Service) iter.Seq2[berth.DataChunk, error] { return s.GetData(ctx, q) })
}

func routedData[T any](ctx context.Context, r *routed, q *berth.DataQuery, open func(berth.Service) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		entry, _, err := r.dataEntry(ctx, q.Infrastructure, q.Path)
		if err != nil {
			var none T
			yield(none, err)
			return
		}
		q.Infrastructure = entry.Name
		open(r.at(entry.Name))(yield)
	}
}

func (r *routed) PutData(ctx context.Context, put berth.DataPut) (berth.DataEntry, error) {
	entry, _, err := r.dataEntry(ctx, put.Infrastructure, put.Path)
	if err != nil {
		return berth.DataEntry{}, err
	}
	put.Infrastructure = entry.Name
	return r.at(entry.Name).PutData(ctx, put)
}

func (r *routed) RemoveData(ctx context.Context, q berth.DataQuery) error {
	entry, _, err := r.dataEntry(ctx, q.Infrastructure, q.Path)
	if err != nil {
		return err
	}
	q.Infrastructure = entry.Name
	return r.at(entry.Name).RemoveData(ctx, q)
}

func (l *local) ListData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataEntry, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.DataEntry, error] { return l.Host.ListData(ctx, q) })
}

func (l *local) GetData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataChunk, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.DataChunk, error] { return l.Host.GetData(ctx, q) })
}

func (l *local) PutData(ctx context.Context, put berth.DataPut) (berth.DataEntry, error) {
	return here(ctx, l, func(ctx context.Context) (berth.DataEntry, error) { return l.Host.PutData(ctx, put) })
}

func (l *local) RemoveData(ctx context.Context, q berth.DataQuery) error {
	_, err := here(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.Host.RemoveData(ctx, q) })
	return err
}
