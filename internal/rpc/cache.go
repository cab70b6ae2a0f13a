package rpc

import (
	"context"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func fromCachedCall(c *berth.CachedCall) *pb.CachedCall {
	return &pb.CachedCall{
		Id: c.ID, Digest: c.Digest, Owner: c.Owner, Name: c.Name, Image: c.Image, Package: c.Package, Version: c.Version, Task: c.Task, Run: c.Run, Result: c.Result, CreatedAt: fromTime(c.CreatedAt),
	}
}

func toCachedCall(c *pb.CachedCall) berth.CachedCall {
	return berth.CachedCall{
		ID: c.GetId(), Digest: c.GetDigest(), Owner: c.GetOwner(), Name: c.GetName(), Image: c.GetImage(), Package: c.GetPackage(), Version: c.GetVersion(), Task: c.GetTask(), Run: c.GetRun(), Result: toValue(c.GetResult()), CreatedAt: toTime(c.GetCreatedAt()),
	}
}

func (s *server) ListCache(ctx context.Context, r *connect.Request[pb.ListCacheRequest]) (*connect.Response[pb.ListCacheResponse], error) {
	page, err := s.service.Cache(ctx, berth.CacheQuery{Owner: r.Msg.GetOwner(), Package: r.Msg.GetPackage(), Before: toTime(r.Msg.GetBefore()), Limit: int(r.Msg.GetLimit()), After: r.Msg.GetAfter()})
	out := &pb.ListCacheResponse{Next: page.Next}
	for i := range page.Calls {
		out.Calls = append(out.Calls, fromCachedCall(&page.Calls[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) ClearCache(ctx context.Context, r *connect.Request[pb.ClearCacheRequest]) (*connect.Response[pb.ClearCacheResponse], error) {
	n, err := s.service.ClearCache(ctx, berth.CacheQuery{Owner: r.Msg.GetOwner(), Package: r.Msg.GetPackage(), Before: toTime(r.Msg.GetBefore())})
	return connect.NewResponse(&pb.ClearCacheResponse{Cleared: int32(n)}), toWire(err)
}

func (c *Client) Cache(ctx context.Context, q berth.CacheQuery) (berth.CachePage, error) {
	request := &pb.ListCacheRequest{Owner: q.Owner, Package: q.Package, Before: fromTime(q.Before), Limit: int32(q.Limit), After: q.After}
	return call(ctx, c.rpc.ListCache, request, func(m *pb.ListCacheResponse) berth.CachePage {
		page := berth.CachePage{Calls: []berth.CachedCall{}, Next: m.GetNext()}
		for _, cached := range m.GetCalls() {
			page.Calls = append(page.Calls, toCachedCall(cached))
		}
		return page
	})
}

func (c *Client) ClearCache(ctx context.Context, q berth.CacheQuery) (int, error) {
	request := &pb.ClearCacheRequest{Owner: q.Owner, Package: q.Package, Before: fromTime(q.Before)}
	return call(ctx, c.rpc.ClearCache, request, func(m *pb.ClearCacheResponse) int { return int(m.GetCleared()) })
}

func (r *Resuming) Cache(ctx context.Context, q berth.CacheQuery) (berth.CachePage, error) {
	return do(ctx, r, func(s berth.Service) (berth.CachePage, error) { return s.Cache(ctx, q) })
}

func (r *Resuming) ClearCache(ctx context.Context, q berth.CacheQuery) (int, error) {
	return do(ctx, r, func(s berth.Service) (int, error) { return s.ClearCache(ctx, q) })
}
