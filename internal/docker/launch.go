package docker

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// startTimeout bounds the start of a container. It is long, as a start that
// was given up may be done all the same.
const startTimeout = 2 * time.Minute

// making is part of the name of a container that is not complete yet. It gets
// its own name when all is in it, so what has that name can be started by
// anybody who finds it not started.
const making = ".making-"

var removing = regexp.MustCompile(`removal of container .* is already in progress|marked for removal`)

// launches are the containers that this process is making and starting.
type launches struct {
	mu    sync.Mutex
	names map[string]bool
}

func newLaunches() *launches { return &launches{names: map[string]bool{}} }

// begin takes a container's name for itself; false when somebody else has it.
func (l *launches) begin(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names[name] {
		return false
	}
	l.names[name] = true
	return true
}

func (l *launches) end(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.names, name)
}

// Create makes and starts the container of an attempt, and before that fetches
// its image where that is to be done.
func (d *Driver) Create(ctx context.Context, order engine.Order) (string, error) {
	if !d.launches.begin(order.Pod) {
		return "", &engine.Refusal{Kind: engine.RefusedTransient, Err: context.DeadlineExceeded}
	}
	defer d.launches.end(order.Pod)
	if err := d.possible(ctx, order); err != nil {
		return "", err
	}
	image, err := d.image(ctx, order)
	if err != nil {
		return "", err
	}
	id, err := d.create(ctx, order, image)
	if err != nil {
		return "", err
	}
	if err := d.start(ctx, id, order); err != nil {
		return "", err
	}
	return id, nil
}

// Preflight refuses what this Engine can never run.
func (d *Driver) Preflight(ctx context.Context, order engine.Order) error {
	return d.possible(ctx, order)
}

// possible refuses what this Engine can never run.
func (d *Driver) possible(ctx context.Context, order engine.Order) error {
	if order.Agent != nil {
		for _, s := range order.Agent.Secrets {
			if s.Ref != nil {
				return d.refuse(errSecretRef{s}, "create", order)
			}
		}
	}
	wanted, err := order.Spec.Memory.Bytes()
	if err != nil {
		return nil //nolint:nilerr // none is asked for
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	h, err := d.known(ctx)
	if err != nil {
		return d.refuse(err, "get", order)
	}
	if h.memory > 0 && wanted > h.memory {
		return d.refuse(errNoMemory{h}, "create", order)
	}
	return nil
}

// create makes the container of an attempt, complete but not started.
func (d *Driver) create(ctx context.Context, order engine.Order, image imageFacts) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	config, host, err := renderContainer(order, d.config, image.ref)
	if err != nil {
		return "", err
	}
	name := order.Pod
	if order.Agent != nil {
		name += making + xid.New().String()
	}
	made, err := d.client.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: host, Name: name})
	if err != nil {
		return "", d.refuse(err, "create", order)
	}
	if order.Agent == nil {
		return made.ID, nil
	}
	err = d.furnish(ctx, made.ID, order, image)
	if err == nil {
		_, err = d.client.api.ContainerRename(ctx, made.ID, client.ContainerRenameOptions{NewName: order.Pod})
	}
	if err != nil {
		d.discard(context.WithoutCancel(ctx), made.ID)
		return "", d.refuse(err, "create", order)
	}
	return made.ID, nil
}

// discard removes a container that was never started.
func (d *Driver) discard(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// What stays is removed by the next listing; see watch.listed.
	_, _ = d.client.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true})
}

// start starts a container that was never started. One that the Engine can't
// start exists all the same, and says itself what is wrong with it.
func (d *Driver) start(ctx context.Context, id string, order engine.Order) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := d.client.api.ContainerStart(ctx, id, client.ContainerStartOptions{})
	if err == nil {
		return nil
	}
	c, again := d.inspect(ctx, id)
	if again == nil && !neverStarted(c) {
		d.changed(id) // no event tells of it
		return nil
	}
	return d.refuse(err, "start", order)
}

// neverStarted reports whether nobody has tried to start a container.
func neverStarted(c *container.InspectResponse) bool {
	return c.State.Status == container.StateCreated && c.State.Error == "" && c.State.ExitCode == 0
}

// Find looks for the container of an attempt, and whether it is ours. One that
// was made and not started can only have been meant to run: it is started.
func (d *Driver) Find(ctx context.Context, order engine.Order) (string, bool, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := d.inspect(callCtx, order.Pod)
	if err != nil {
		return "", false, d.refuse(err, "get", order)
	}
	if c.Name != "/"+order.Pod {
		return "", false, d.refuse(cerrdefs.ErrNotFound.WithMessage("No such container: "+order.Pod), "get", order) // its ID begins so
	}
	ours := c.Config.Labels[berth.LabelInstance] == order.Instance && c.Config.Labels[berth.LabelTask] == order.TaskID
	if ours && neverStarted(c) {
		if err := d.finish(ctx, c.ID, order); err != nil {
			return "", false, err
		}
	}
	return c.ID, ours, nil
}

// finish starts a container that whoever made it did not come to start. It
// looks once more, now that nobody else here does the same.
func (d *Driver) finish(ctx context.Context, id string, order engine.Order) error {
	if !d.launches.begin(order.Pod) {
		return nil
	}
	defer d.launches.end(order.Pod)
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := d.inspect(callCtx, id)
	if err != nil {
		return d.refuse(err, "get", order)
	}
	if !neverStarted(c) {
		return nil
	}
	return d.start(ctx, id, order)
}

// remembered is how many events an Engine keeps.
const remembered = 256

// Vouch asks for the events that the Engine remembers: whatever was started
// left one.
func (d *Driver) Vouch(ctx context.Context, pod string, since time.Time) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	h, err := d.look(ctx)
	if err != nil {
		return false, d.refusal(err, "list events of", pod)
	}
	// Clocks are compared to a second or so.
	from, to := since.Add(h.ahead-time.Minute), time.Now().Add(h.ahead)
	result := d.client.api.Events(ctx, client.EventsListOptions{Since: from.Format(time.RFC3339Nano), Until: to.Format(time.RFC3339Nano)})
	count, existed := 0, false
	for {
		select {
		case e := <-result.Messages:
			count++
			if e.Type == events.ContainerEventType && e.Actor.Attributes["name"] == pod && e.Action == events.ActionStart {
				existed = true
			}
			continue
		case err := <-result.Err:
			switch {
			case existed:
				return true, nil
			case err != nil && !isEOF(err):
				return false, d.refusal(err, "list events of", pod)
			case count >= remembered:
				return false, &engine.Refusal{Kind: engine.RefusedUnknown, Err: errForgotten}
			}
			return false, nil
		}
	}
}

// ownName returns the name of a listed container, and whether it is complete.
func ownName(names []string) (name string, complete bool) {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			name = n
		}
	}
	return name, !strings.Contains(name, making)
}
