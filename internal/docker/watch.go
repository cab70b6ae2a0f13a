package docker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

const (
	// freshFor is how long events are believed to tell all. An Engine drops
	// those that a slow reader doesn't take, so all is listed again now and then.
	freshFor = 10 * time.Minute

	// alive is how often an Engine is asked whether it still is there: a
	// connection that died may not show otherwise.
	alive = 15 * time.Second

	inspectors = 8 // at once
)

// errRelist: what was missed can only be found out by listing again.
var errRelist = errors.New("the events may not be complete any more")

// Watch lists the containers of an instance, and then inspects each that an
// event is about.
func (d *Driver) Watch(ctx context.Context, sink engine.Sink) {
	defer d.deadlines.clear()
	for wait := 250 * time.Millisecond; ctx.Err() == nil; {
		began := time.Now()
		err := d.listAndWatch(ctx, sink)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRelist) {
			continue
		}
		if time.Since(began) > 10*time.Second {
			wait = 250 * time.Millisecond
		}
		sink.Lost(d.refusal(err, "watch", ""))
		select {
		case <-ctx.Done():
		case <-time.After(wait + rand.N(wait/2)):
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// watch is one connection's worth of watching.
type watch struct {
	driver *Driver
	sink   engine.Sink
	failed func(error) // ends the watch

	mu      sync.Mutex
	changed map[string]bool           // containers to be inspected
	gone    map[string]events.Message // containers that were removed
	busy    map[string]bool           // being inspected
	wake    chan struct{}             // something was added; holds one
}

func (d *Driver) listAndWatch(parent context.Context, sink engine.Sink) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	w := &watch{
		driver: d, sink: sink, failed: cancel,
		changed: map[string]bool{}, gone: map[string]events.Message{}, busy: map[string]bool{}, wake: make(chan struct{}, 1),
	}
	if err := d.answers(ctx); err != nil {
		return err
	}
	// Events come first, so that the list misses nothing that they don't tell.
	stream := d.client.api.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", "container").Add("label", berth.LabelInstance+"="+d.instance).
		Add("event", string(events.ActionStart), string(events.ActionDie), string(events.ActionDestroy))})
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	running.Go(func() { w.take(ctx, stream) })
	if err := w.list(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	d.watching.Store(w)
	defer d.watching.CompareAndSwap(w, nil)
	for range inspectors {
		running.Go(func() { w.work(ctx) })
	}
	running.Go(func() { w.probe(ctx) })
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(freshFor):
		return errRelist
	}
}

// answers reports whether an Engine answers, and what it is.
func (d *Driver) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.look(ctx)
	return err
}

// take takes events as they come, whatever becomes of them: an Engine does not
// wait for a slow reader.
func (w *watch) take(ctx context.Context, stream client.EventsResult) {
	for {
		select {
		case e := <-stream.Messages:
			w.mu.Lock()
			if e.Action == events.ActionDestroy {
				w.gone[e.Actor.ID] = e
			} else {
				w.changed[e.Actor.ID] = true
			}
			w.mu.Unlock()
			w.signal()
		case err := <-stream.Err:
			if err == nil || isEOF(err) {
				err = errCut
			}
			w.failed(err)
			return
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// changed has a container inspected that no event tells of.
func (d *Driver) changed(id string) {
	if w := d.watching.Load(); w != nil {
		w.mu.Lock()
		w.changed[id] = true
		w.mu.Unlock()
		w.signal()
	}
}

// work inspects what changed, no container twice at the same time.
func (w *watch) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		for {
			id, gone, ok := w.next()
			if !ok {
				break
			}
			w.signal() // there may be more, for others
			w.report(ctx, id, gone)
			w.mu.Lock()
			delete(w.busy, id)
			w.mu.Unlock()
		}
	}
}

// next takes a container that is to be looked at; gone when it was removed.
func (w *watch) next() (id string, gone *events.Message, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, e := range w.gone {
		if !w.busy[id] {
			delete(w.gone, id)
			delete(w.changed, id)
			w.busy[id] = true
			return id, &e, true
		}
	}
	for id := range w.changed {
		if !w.busy[id] {
			delete(w.changed, id)
			w.busy[id] = true
			return id, nil, true
		}
	}
	return "", nil, false
}

func (w *watch) report(ctx context.Context, id string, gone *events.Message) {
	if gone != nil {
		w.driver.deadlines.forget(id)
		o := identified(gone.Actor.Attributes["name"], id, gone.Actor.Attributes)
		o.Gone = true
		w.sink.Observed(o)
		return
	}
	o, err := w.look(ctx, id, "")
	switch {
	case err == nil && o != nil:
		w.sink.Observed(*o)
	case err == nil, cerrdefs.IsNotFound(err), ctx.Err() != nil:
	default:
		w.failed(err)
	}
}

// probe ends the watch when the Engine no longer answers.
func (w *watch) probe(ctx context.Context) {
	tick := time.NewTicker(alive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		probeCtx, cancel := context.WithTimeout(ctx, alive)
		_, err := w.driver.client.api.Ping(probeCtx, client.PingOptions{})
		cancel()
		if err != nil {
			w.failed(err)
			return
		}
	}
}
