package control

import (
	"context"
	"iter"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

func (r *routed) StartRun(ctx context.Context, s berth.RunSubmission) (berth.Run, error) {
	entry, err := r.homeOf(ctx, r.caller(ctx), s)
	if err != nil {
		return berth.Run{}, err
	}
	if s.Infrastructure = entry.Name; s.Key == "" {
		s.Key = xid.New().String()
	}
	return r.at(entry.Name).StartRun(ctx, s)
}

// ofRun returns the Service of a run.
func (r *routed) ofRun(ctx context.Context, id string) (berth.Service, error) {
	run, err := r.visibleRun(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, known := r.entry(run.Infrastructure); !known || run.State.Terminal() {
		return r.Host, nil
	}
	return r.at(run.Infrastructure), nil
}

func (r *routed) Run(ctx context.Context, id string) (berth.Run, error) {
	service, err := r.ofRun(ctx, id)
	if err != nil {
		return berth.Run{}, err
	}
	return service.Run(ctx, id)
}

func (r *routed) CancelRun(ctx context.Context, id string) (berth.Run, error) {
	service, err := r.ofRun(ctx, id)
	if err != nil {
		return berth.Run{}, err
	}
	return service.CancelRun(ctx, id)
}

func (r *routed) ResumeRun(ctx context.Context, resumption berth.RunResumption) (berth.Run, error) {
	run, err := r.visibleRun(ctx, resumption.ID)
	if err != nil {
		return berth.Run{}, err
	}
	return r.at(run.Infrastructure).ResumeRun(ctx, resumption)
}

func (r *routed) WatchRun(ctx context.Context, id string) iter.Seq2[berth.Run, error] {
	return through(ctx, r.ofRun, id, func(s berth.Service) iter.Seq2[berth.Run, error] { return s.WatchRun(ctx, id) })
}

func (r *routed) RunCalls(ctx context.Context, id string, follow bool) iter.Seq2[berth.RunCall, error] {
	return through(ctx, r.ofRun, id, func(s berth.Service) iter.Seq2[berth.RunCall, error] { return s.RunCalls(ctx, id, follow) })
}
