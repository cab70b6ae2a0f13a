package docker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// callTimeout bounds a single call; what it does may have been done all the same.
const callTimeout = 30 * time.Second

// Driver runs attempts as containers of one Docker Engine. It implements
// engine.Driver; what that calls a pod is a container, and its UID the
// container's ID.
type Driver struct {
	client   *Client
	config   berth.InfrastructureConfig
	instance string

	host      atomic.Pointer[host] // as last told; nil before the first time
	pulls     *pulls
	launches  *launches
	deadlines *deadlines
	watching  atomic.Pointer[watch] // nil while nobody watches
}

var _ engine.Driver = (*Driver)(nil)

// NewDriver returns a driver for what a store's instance runs through a client.
func NewDriver(c *Client, config berth.InfrastructureConfig, instance string) *Driver {
	d := &Driver{client: c, config: config, instance: instance, pulls: newPulls(), launches: newLaunches()}
	d.deadlines = newDeadlines(d.overdue)
	return d
}

// Server returns the address of the Engine.
func (d *Driver) Server() string { return d.client.Server }

// Version returns the version of the Engine, such as 20.10.24.
func (d *Driver) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := d.client.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", d.refusal(err, "get the version", "")
	}
	return v.Version, nil
}

// Identity returns the ID that an Engine gave itself when it was installed.
func (d *Driver) Identity(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	h, err := d.look(ctx)
	if err != nil {
		return "", d.refusal(err, "look at the Engine", "")
	}
	return h.id, nil
}

// WatchQuota returns at once: an Engine has no quotas.
func (d *Driver) WatchQuota(context.Context, func()) error {
	return errors.New("a Docker Engine has no quotas")
}

// host is what was last told of the machine that the Engine is on.
type host struct {
	id, name     string
	cpus         int
	memory       int64         // bytes
	ahead        time.Duration // of the Engine's clock before this machine's
	architecture string
}

// look asks what the Engine and its machine are.
func (d *Driver) look(ctx context.Context) (*host, error) {
	asked := time.Now()
	result, err := d.client.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, err
	}
	info := result.Info
	h := &host{id: info.ID, name: info.Name, cpus: info.NCPU, memory: info.MemTotal, architecture: info.Architecture}
	if at, err := time.Parse(time.RFC3339Nano, info.SystemTime); err == nil {
		// Both clocks were read between asking and the answer.
		if ahead := at.Sub(asked.Add(time.Since(asked) / 2)); ahead.Abs() > time.Second {
			h.ahead = ahead
		}
	}
	d.host.Store(h)
	return h, nil
}

// known returns what is known of the machine, asking when nothing is.
func (d *Driver) known(ctx context.Context) (*host, error) {
	if h := d.host.Load(); h != nil {
		return h, nil
	}
	return d.look(ctx)
}

// clock returns the time by the Engine's clock, as far as it is known.
func (d *Driver) clock() time.Time {
	if h := d.host.Load(); h != nil {
		return time.Now().Add(h.ahead)
	}
	return time.Now()
}

// inspect asks for a container by its name or ID.
func (d *Driver) inspect(ctx context.Context, which string) (*container.InspectResponse, error) {
	result, err := d.client.api.ContainerInspect(ctx, which, client.ContainerInspectOptions{})
	if err != nil {
		return nil, err
	}
	return &result.Container, nil
}

// Delete stops a container that runs, which then stays with its outcome and
// log, and removes one that doesn't.
func (d *Driver) Delete(ctx context.Context, pod, uid string, grace time.Duration) (engine.Deletion, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := d.inspect(callCtx, uid)
	if cerrdefs.IsNotFound(err) {
		return engine.DeletionGone, nil
	}
	if err != nil {
		return engine.DeletionGoing, d.refusal(err, "delete", pod)
	}
	if c.State.Running && grace != 0 {
		return engine.DeletionStopped, d.stop(ctx, c.ID, pod, grace)
	}
	_, err = d.client.api.ContainerRemove(callCtx, c.ID, client.ContainerRemoveOptions{RemoveVolumes: true, Force: grace == 0})
	switch {
	case err == nil, cerrdefs.IsNotFound(err):
		return engine.DeletionGone, nil
	case removing.MatchString(err.Error()):
		return engine.DeletionGoing, nil
	}
	return engine.DeletionGoing, d.refusal(err, "delete", pod)
}

// stop asks a container to end, and sees to it that it is killed after the
// grace. The Engine does both with one call, which it finishes also when
// nobody waits for the answer, so it is waited for only until it was sent.
func (d *Driver) stop(ctx context.Context, id, pod string, grace time.Duration) error {
	options := client.ContainerStopOptions{}
	if grace > 0 {
		seconds := int((grace + time.Second - 1) / time.Second)
		options.Timeout = &seconds
	}
	done := make(chan error, 1)
	go func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(grace, terminationGrace)+callTimeout)
		defer cancel()
		_, err := d.client.api.ContainerStop(stopCtx, id, options)
		done <- err
	}()
	sent := time.NewTimer(stopSent)
	defer sent.Stop()
	select {
	case err := <-done:
		if err != nil && !cerrdefs.IsNotFound(err) {
			return d.refusal(err, "stop", pod)
		}
	case <-sent.C:
	}
	return nil
}

// stopSent is how long it may take until the Engine has got a call: whatever
// keeps it from us shows within that time.
const stopSent = 2 * time.Second
