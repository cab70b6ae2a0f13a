package control

import (
	"context"
	"iter"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc"
)

// service is the Service as callers have it.
func (h *Host) service() berth.Service {
	if h.fleet == nil {
		return h
	}
	return &routed{h, h.fleet}
}

// routed is a Host whose callers need not know which server holds what: what
// concerns an infrastructure is done by the server that holds it, and goes on
// with the next where that one dies or gives it away.
type routed struct {
	*Host
	fleet *fleet
}

// anywhere is a Service of an infrastructure, wherever that is.
type anywhere struct{ *rpc.Resuming }

func (anywhere) Close() error { return nil } // its clients are kept

func (r *routed) at(infrastructure string) berth.Service {
	return anywhere{rpc.NewResuming(func(ctx context.Context, gone berth.Service) (berth.Service, error) {
		return r.fleet.holder(ctx, infrastructure, gone)
	}, forwardPatience)}
}

// of returns the Service of a task. A settled one is anybody's: all of it is in
// the store.
func (r *routed) of(ctx context.Context, id string) (berth.Service, error) {
	life, err := r.store.Life(ctx, id)
	if err != nil {
		return nil, err
	}
	if !r.caller(ctx).MaySee(&life.Task) {
		return nil, berth.NoSuchTask(id)
	}
	if _, known := r.entry(life.Task.Infrastructure); life.Settled() || !known {
		return r.Host, nil
	}
	return r.at(life.Task.Infrastructure), nil
}

func (r *routed) entry(name string) (berth.InfrastructureConfig, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return berth.InfrastructureConfig{}, false
	}
	return find(r.file, name)
}

// place chooses the infrastructure of what is submitted, and returns its Service.
func (r *routed) place(ctx context.Context, spec *berth.TaskSpec, key *string) (berth.Service, error) {
	entry, _, err := r.placed(ctx, r.caller(ctx), spec)
	if err != nil {
		return nil, err
	}
	spec.Infrastructure = entry.Name
	if *key == "" {
		*key = xid.New().String() // here, so that a second try is the same submission
	}
	return r.at(entry.Name), nil
}

func (r *routed) SubmitTask(ctx context.Context, s berth.Submission) (berth.Task, error) {
	service, err := r.place(ctx, &s.Spec, &s.Key)
	if err != nil {
		return berth.Task{}, err
	}
	return service.SubmitTask(ctx, s)
}

func (r *routed) Task(ctx context.Context, id string) (berth.Task, error) {
	service, err := r.of(ctx, id)
	if err != nil {
		return berth.Task{}, err
	}
	return service.Task(ctx, id)
}

func (r *routed) CancelTask(ctx context.Context, id string) (berth.Task, error) {
	service, err := r.of(ctx, id)
	if err != nil {
		return berth.Task{}, err
	}
	return service.CancelTask(ctx, id)
}

func (r *routed) TaskMetrics(ctx context.Context, id string, q berth.MetricsQuery) (berth.TaskMetrics, error) {
	service, err := r.of(ctx, id)
	if err != nil {
		return berth.TaskMetrics{}, err
	}
	return service.TaskMetrics(ctx, id, q)
}

func (r *routed) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return through(ctx, r.of, id, func(s berth.Service) iter.Seq2[berth.Task, error] { return s.WatchTask(ctx, id) })
}

func (r *routed) TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[berth.Event, error] {
	return through(ctx, r.of, id, func(s berth.Service) iter.Seq2[berth.Event, error] { return s.TaskEvents(ctx, id, after, follow) })
}

func (r *routed) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return through(ctx, r.of, id, func(s berth.Service) iter.Seq2[berth.LogChunk, error] { return s.TaskLogs(ctx, id, q) })
}

// through passes a sequence on, of whoever has it by the time that it is read.
func through[T any](ctx context.Context, of func(context.Context, string) (berth.Service, error), id string, open func(berth.Service) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		service, err := of(ctx, id)
		if err != nil {
			var none T
			yield(none, err)
			return
		}
		open(service)(yield)
	}
}

func (r *routed) SubmitArray(ctx context.Context, s berth.ArraySubmission) (berth.Array, error) {
	service, err := r.place(ctx, &s.Spec, &s.Key)
	if err != nil {
		return berth.Array{}, err
	}
	return service.SubmitArray(ctx, s)
}

// ofArray returns the Service of an array.
func (r *routed) ofArray(ctx context.Context, id string) (berth.Service, error) {
	array, err := r.visibleArray(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, known := r.entry(array.Infrastructure); !known || array.Ended() == array.Size {
		return r.Host, nil
	}
	return r.at(array.Infrastructure), nil
}

func (r *routed) CancelArray(ctx context.Context, id string) (berth.Array, error) {
	service, err := r.ofArray(ctx, id)
	if err != nil {
		return berth.Array{}, err
	}
	return service.CancelArray(ctx, id)
}

func (r *routed) RetryArray(ctx context.Context, id, key string) (berth.Array, error) {
	array, err := r.visibleArray(ctx, id)
	if err != nil {
		return berth.Array{}, err
	}
	return r.at(array.Infrastructure).RetryArray(ctx, id, key)
}

func (r *routed) WatchArray(ctx context.Context, id string) iter.Seq2[berth.Array, error] {
	return through(ctx, r.ofArray, id, func(s berth.Service) iter.Seq2[berth.Array, error] { return s.WatchArray(ctx, id) })
}

// Infrastructures has of each infrastructure what its holder knows.
func (r *routed) Infrastructures(ctx context.Context) ([]berth.Infrastructure, error) {
	list, err := r.Host.Infrastructures(ctx)
	if err != nil || forwarded(ctx) {
		return list, err
	}
	ask, cancel := context.WithTimeout(ctx, 2*probeTimeout)
	defer cancel()
	type answer struct {
		server berth.Server
		list   []berth.Infrastructure
		err    error
	}
	answers := make(chan answer)
	others := 0
	sharing := r.fleet.keeper.Sharing()
	for _, server := range sharing.Servers {
		if server.ID == r.fleet.id {
			continue
		}
		others++
		go func() {
			a := answer{server: server}
			var service berth.Service
			if service, a.err = r.fleet.client(ask, server); a.err == nil {
				a.list, a.err = service.Infrastructures(ask)
			}
			answers <- a
		}()
	}
	told := map[string]map[string]berth.Infrastructure{}
	for range others {
		a := <-answers
		if a.err != nil {
			r.config.Log.Warn("a server doesn't tell how its infrastructures stand", "server", a.server.URL, "error", a.err)
		}
		told[a.server.ID] = map[string]berth.Infrastructure{}
		for _, i := range a.list {
			told[a.server.ID][i.Name] = i
		}
	}
	for n := range list {
		server, ok, _ := r.fleet.keeper.Holder(list[n].Name)
		if !ok {
			continue
		}
		if theirs, ok := told[server.ID][list[n].Name]; ok {
			theirs.Default = list[n].Default
			list[n] = theirs
		}
		list[n].Holder = &server.URL
	}
	return list, nil
}

// local is this server's own part of a fleet, for an infrastructure that it
// reconciles. What breaks off because the infrastructure moved away is gone, as
// if another server had gone.
type local struct {
	*Host
	fleet          *fleet
	infrastructure string
}

func here[T any](ctx context.Context, l *local, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := l.fleet.while(ctx, l.infrastructure)
	defer cancel()
	value, err := call(ctx)
	return value, moved(ctx, err)
}

func stream[T any](ctx context.Context, l *local, open func(context.Context) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := l.fleet.while(ctx, l.infrastructure)
		defer cancel()
		for value, err := range open(ctx) {
			if !yield(value, moved(ctx, err)) {
				return
			}
		}
	}
}

func (l *local) SubmitTask(ctx context.Context, s berth.Submission) (berth.Task, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Task, error) { return l.Host.SubmitTask(ctx, s) })
}

func (l *local) Task(ctx context.Context, id string) (berth.Task, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Task, error) { return l.Host.Task(ctx, id) })
}

func (l *local) CancelTask(ctx context.Context, id string) (berth.Task, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Task, error) { return l.Host.CancelTask(ctx, id) })
}

func (l *local) TaskMetrics(ctx context.Context, id string, q berth.MetricsQuery) (berth.TaskMetrics, error) {
	return here(ctx, l, func(ctx context.Context) (berth.TaskMetrics, error) { return l.Host.TaskMetrics(ctx, id, q) })
}

func (l *local) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.Task, error] { return l.Host.WatchTask(ctx, id) })
}

func (l *local) TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[berth.Event, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.Event, error] {
		return l.Host.TaskEvents(ctx, id, after, follow)
	})
}

func (l *local) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.LogChunk, error] { return l.Host.TaskLogs(ctx, id, q) })
}

func (l *local) SubmitArray(ctx context.Context, s berth.ArraySubmission) (berth.Array, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Array, error) { return l.Host.SubmitArray(ctx, s) })
}

func (l *local) CancelArray(ctx context.Context, id string) (berth.Array, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Array, error) { return l.Host.CancelArray(ctx, id) })
}

func (l *local) RetryArray(ctx context.Context, id, key string) (berth.Array, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Array, error) { return l.Host.RetryArray(ctx, id, key) })
}

func (l *local) WatchArray(ctx context.Context, id string) iter.Seq2[berth.Array, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.Array, error] { return l.Host.WatchArray(ctx, id) })
}
