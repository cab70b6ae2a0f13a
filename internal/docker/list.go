package docker

import (
	"context"
	"errors"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// list reports all containers of the instance.
func (w *watch) list(ctx context.Context) error {
	d, began := w.driver, time.Now()
	listCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := d.client.api.ContainerList(listCtx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", berth.LabelInstance+"="+d.instance)})
	if err != nil {
		return err
	}
	seen := make([]*berth.Observation, len(result.Items))
	errs := make([]error, len(result.Items))
	slots := make(chan struct{}, inspectors)
	var all sync.WaitGroup
	for i := range result.Items {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			seen[i], errs[i] = w.listed(ctx, &result.Items[i])
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var pods []berth.Observation
	for _, o := range seen {
		if o != nil {
			pods = append(pods, *o)
		}
	}
	w.sink.Listed(pods, began)
	return nil
}

// listed looks at one container of the list. Of those that aren't complete
// nothing is told: whoever makes them does that, or has ended, and then they
// are removed.
func (w *watch) listed(ctx context.Context, item *container.Summary) (*berth.Observation, error) {
	name, complete := ownName(item.Names)
	if !complete {
		if time.Since(time.Unix(item.Created, 0)) > abandoned {
			w.driver.discard(ctx, item.ID)
		}
		return nil, nil
	}
	o, err := w.look(ctx, item.ID, name)
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	return o, err
}

// abandoned is after what time nobody is still making a container.
const abandoned = 2*callTimeout + startTimeout

// look inspects a container; nil when there is nothing to be told of it yet.
func (w *watch) look(ctx context.Context, id, name string) (*berth.Observation, error) {
	d := w.driver
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := d.inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	if neverStarted(c) {
		return w.neverStarted(ctx, c, name)
	}
	o, err := d.observe(ctx, c)
	if err != nil {
		return nil, err
	}
	d.deadlines.see(c, d.clock())
	return &o, nil
}

// neverStarted starts what whoever made it did not come to start.
func (w *watch) neverStarted(ctx context.Context, c *container.InspectResponse, name string) (*berth.Observation, error) {
	d := w.driver
	order := engine.Order{Instance: d.instance, TaskID: c.Config.Labels[berth.LabelTask], Pod: name, Spec: berth.TaskSpec{Image: c.Config.Image}}
	d.launches.mu.Lock()
	beingMade := d.launches.names[name]
	d.launches.mu.Unlock()
	if beingMade {
		return nil, nil
	}
	if err := d.finish(ctx, c.ID, order); err != nil {
		return nil, err
	}
	again, err := d.inspect(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	o, err := d.observe(ctx, again)
	d.deadlines.see(again, d.clock())
	return &o, err
}
