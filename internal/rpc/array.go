package rpc

import (
	"context"
	"iter"

	"connectrpc.com/connect"
	"github.com/rs/xid"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func fromArray(a *berth.Array) *pb.Array {
	out := &pb.Array{
		Id: a.ID, Size: int32(a.Size), States: map[string]int32{}, CreatedAt: fromTime(a.CreatedAt), CancelledAt: fromTimePtr(a.CancelledAt),
		RetryOf: a.RetryOf, Owner: a.Owner, Spec: fromSpec(&a.Spec),
	}
	for state, n := range a.States {
		out.States[string(state)] = int32(n)
	}
	return out
}

func toArray(a *pb.Array) berth.Array {
	out := berth.Array{
		ID: a.GetId(), Size: int(a.GetSize()), States: map[berth.TaskState]int{}, CreatedAt: toTime(a.GetCreatedAt()), CancelledAt: toTimePtr(a.GetCancelledAt()),
		RetryOf: a.RetryOf, Owner: a.GetOwner(), Spec: toSpec(a.GetSpec()),
	}
	out.Infrastructure, out.Image = out.Spec.Infrastructure, out.Spec.Image
	if out.Spec.Name != "" {
		out.Name = &out.Spec.Name
	}
	for state, n := range a.GetStates() {
		out.States[berth.TaskState(state)] = int(n)
	}
	return out
}

func fromItem(i *berth.ArrayItem) *pb.ArrayItem {
	if i == nil {
		return nil
	}
	return &pb.ArrayItem{Id: i.ID, Index: int32(i.Index), Item: i.Item}
}

func toItem(i *pb.ArrayItem) *berth.ArrayItem {
	if i == nil {
		return nil
	}
	return &berth.ArrayItem{ID: i.GetId(), Index: int(i.GetIndex()), Item: i.GetItem()}
}

func (s *server) SubmitArray(ctx context.Context, r *connect.Request[pb.SubmitArrayRequest]) (*connect.Response[pb.SubmitArrayResponse], error) {
	submission := berth.ArraySubmission{Key: r.Msg.GetKey(), Spec: toSpec(r.Msg.GetSpec()), Items: r.Msg.GetItems(), NoPreflight: r.Msg.GetNoPreflight()}
	for _, index := range r.Msg.GetIndices() {
		submission.Indices = append(submission.Indices, int(index))
	}
	array, err := s.service.SubmitArray(ctx, submission)
	return connect.NewResponse(&pb.SubmitArrayResponse{Array: fromArray(&array)}), toWire(err)
}

func (s *server) GetArray(ctx context.Context, r *connect.Request[pb.GetArrayRequest]) (*connect.Response[pb.GetArrayResponse], error) {
	array, err := s.service.Array(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.GetArrayResponse{Array: fromArray(&array)}), toWire(err)
}

func (s *server) ListArrays(ctx context.Context, r *connect.Request[pb.ListArraysRequest]) (*connect.Response[pb.ListArraysResponse], error) {
	page, err := s.service.Arrays(ctx, berth.ArrayQuery{Infrastructure: r.Msg.GetInfrastructure(), Owner: r.Msg.GetOwner(), Limit: int(r.Msg.GetLimit()), After: r.Msg.GetAfter()})
	out := &pb.ListArraysResponse{Next: page.Next}
	for i := range page.Arrays {
		out.Arrays = append(out.Arrays, fromArray(&page.Arrays[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) WatchArray(ctx context.Context, r *connect.Request[pb.WatchArrayRequest], stream *connect.ServerStream[pb.WatchArrayResponse]) error {
	return relay(s.service.WatchArray(ctx, r.Msg.GetId()), stream, func(a berth.Array) *pb.WatchArrayResponse {
		return &pb.WatchArrayResponse{Array: fromArray(&a)}
	})
}

func (s *server) CancelArray(ctx context.Context, r *connect.Request[pb.CancelArrayRequest]) (*connect.Response[pb.CancelArrayResponse], error) {
	array, err := s.service.CancelArray(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.CancelArrayResponse{Array: fromArray(&array)}), toWire(err)
}

func (s *server) RetryArray(ctx context.Context, r *connect.Request[pb.RetryArrayRequest]) (*connect.Response[pb.RetryArrayResponse], error) {
	array, err := s.service.RetryArray(ctx, r.Msg.GetId(), r.Msg.GetKey())
	return connect.NewResponse(&pb.RetryArrayResponse{Array: fromArray(&array)}), toWire(err)
}

func (c *Client) SubmitArray(ctx context.Context, s berth.ArraySubmission) (berth.Array, error) {
	request := &pb.SubmitArrayRequest{Key: s.Key, Spec: fromSpec(&s.Spec), Items: s.Items, NoPreflight: s.NoPreflight}
	for _, index := range s.Indices {
		request.Indices = append(request.Indices, int32(index))
	}
	return call(ctx, c.rpc.SubmitArray, request, func(m *pb.SubmitArrayResponse) berth.Array { return toArray(m.GetArray()) })
}

func (c *Client) Array(ctx context.Context, id string) (berth.Array, error) {
	return call(ctx, c.rpc.GetArray, &pb.GetArrayRequest{Id: id}, func(m *pb.GetArrayResponse) berth.Array { return toArray(m.GetArray()) })
}

func (c *Client) Arrays(ctx context.Context, q berth.ArrayQuery) (berth.ArrayPage, error) {
	request := &pb.ListArraysRequest{Infrastructure: q.Infrastructure, Owner: q.Owner, Limit: int32(q.Limit), After: q.After}
	return call(ctx, c.rpc.ListArrays, request, func(m *pb.ListArraysResponse) berth.ArrayPage {
		page := berth.ArrayPage{Arrays: []berth.Array{}, Next: m.GetNext()}
		for _, a := range m.GetArrays() {
			page.Arrays = append(page.Arrays, toArray(a))
		}
		return page
	})
}

func (c *Client) WatchArray(ctx context.Context, id string) iter.Seq2[berth.Array, error] {
	return receive(ctx, c.rpc.WatchArray, &pb.WatchArrayRequest{Id: id}, func(m *pb.WatchArrayResponse) berth.Array { return toArray(m.GetArray()) })
}

func (c *Client) CancelArray(ctx context.Context, id string) (berth.Array, error) {
	return call(ctx, c.rpc.CancelArray, &pb.CancelArrayRequest{Id: id}, func(m *pb.CancelArrayResponse) berth.Array { return toArray(m.GetArray()) })
}

func (c *Client) RetryArray(ctx context.Context, id, key string) (berth.Array, error) {
	return call(ctx, c.rpc.RetryArray, &pb.RetryArrayRequest{Id: id, Key: key}, func(m *pb.RetryArrayResponse) berth.Array { return toArray(m.GetArray()) })
}

func (r *Resuming) SubmitArray(ctx context.Context, submission berth.ArraySubmission) (berth.Array, error) {
	if submission.Key == "" {
		submission.Key = xid.New().String() // here, so that a second try is the same submission
	}
	return do(ctx, r, func(s berth.Service) (berth.Array, error) { return s.SubmitArray(ctx, submission) })
}

func (r *Resuming) Array(ctx context.Context, id string) (berth.Array, error) {
	return do(ctx, r, func(s berth.Service) (berth.Array, error) { return s.Array(ctx, id) })
}

func (r *Resuming) Arrays(ctx context.Context, q berth.ArrayQuery) (berth.ArrayPage, error) {
	return do(ctx, r, func(s berth.Service) (berth.ArrayPage, error) { return s.Arrays(ctx, q) })
}

func (r *Resuming) WatchArray(ctx context.Context, id string) iter.Seq2[berth.Array, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.Array, error] { return s.WatchArray(ctx, id) }, func(berth.Array) {})
}

func (r *Resuming) CancelArray(ctx context.Context, id string) (berth.Array, error) {
	return do(ctx, r, func(s berth.Service) (berth.Array, error) { return s.CancelArray(ctx, id) })
}

func (r *Resuming) RetryArray(ctx context.Context, id, key string) (berth.Array, error) {
	if key == "" {
		key = xid.New().String()
	}
	return do(ctx, r, func(s berth.Service) (berth.Array, error) { return s.RetryArray(ctx, id, key) })
}
