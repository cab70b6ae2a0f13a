package control

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/compute"
	"github.com/berth-run/berth/internal/engine"
)

// clusterTasks runs the members of compute clusters, and keeps their keys.
type clusterTasks struct{ host *Host }

var _ compute.Tasks = clusterTasks{}

func (t clusterTasks) Submit(ctx context.Context, caller berth.Caller, key string, spec berth.TaskSpec) (berth.Task, error) {
	h := t.host
	h.mu.Lock()
	entry, err := h.entryLocked(spec.Infrastructure)
	h.mu.Unlock()
	if err != nil {
		return berth.Task{}, err
	}
	spec = completed(&spec, &entry)
	if err := spec.Validate(); err != nil {
		return berth.Task{}, err
	}
	return h.engine.Submit(ctx, caller.Name, shareOf(&entry, caller.Name, spec.Labels), berth.Submission{Key: key, Spec: spec})
}

func (t clusterTasks) Task(ctx context.Context, id string) (berth.Task, error) {
	return t.host.engine.Task(ctx, id)
}

func (t clusterTasks) Cancel(ctx context.Context, id string) error {
	_, err := t.host.engine.Cancel(ctx, id)
	return err
}

func (t clusterTasks) Address(ctx context.Context, id string) (string, error) {
	return t.host.engine.Address(ctx, id)
}

func (t clusterTasks) Changes(cluster string) (<-chan struct{}, func()) {
	return t.host.engine.WatchCluster(cluster)
}

func (t clusterTasks) Dial(ctx context.Context, infrastructure, pod string, port int) (net.Conn, error) {
	conn, err := t.host.engine.Forward(ctx, infrastructure, pod, port)
	if err != nil {
		return nil, told(err, "pod %s of infrastructure %s can't be reached", pod, infrastructure)
	}
	watched := &watchedConn{Conn: conn, closed: make(chan struct{})}
	go watched.whileReachable(func() bool {
		health, _, _ := t.host.engine.Health(infrastructure)
		return health.State == berth.InfraReady
	})
	return watched, nil
}

const (
	// lookAfter is how often it is looked whether a connection into a pod can still
	// be alive, and deadAfter for how long its infrastructure has to be out of reach
	// for it not to be. What is sent into the void is not told otherwise for a
	// quarter of an hour.
	lookAfter = time.Second
	deadAfter = 5 * time.Second
)

// watchedConn is a connection into a pod that ends when its infrastructure is out
// of reach.
type watchedConn struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *watchedConn) whileReachable(reachable func() bool) {
	t := time.NewTicker(lookAfter)
	defer t.Stop()
	var since time.Time
	for {
		select {
		case <-c.closed:
			return
		case now := <-t.C:
			switch {
			case reachable():
				since = time.Time{}
			case since.IsZero():
				since = now
			case now.Sub(since) >= deadAfter:
				_ = c.Close()
				return
			}
		}
	}
}

func (c *watchedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// told makes an error of a driver's refusal, with what it says of its cause.
func told(err error, format string, args ...any) error {
	var refusal *engine.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	code := berth.CodeUnavailable
	switch refusal.Kind {
	case engine.RefusedForbidden, engine.RefusedPermanent:
		code = berth.CodeForbidden
	case engine.RefusedNotFound:
		code = berth.CodeNotFound
	case engine.RefusedExists:
		code = berth.CodeConflict
	}
	if refusal.Diagnosis == nil {
		return dataError(code, nil, format+": %s", append(args, refusal.Err)...)
	}
	return dataError(code, refusal.Diagnosis, format, args...)
}

func (t clusterTasks) secrets(c *berth.Cluster) (engine.SecretKeeper, string, error) {
	keeper, err := t.host.engine.Secrets(c.Infrastructure)
	return keeper, berth.ClusterSecretName(c.ID), err
}

func (t clusterTasks) MakeKeys(ctx context.Context, c *berth.Cluster, keys map[string][]byte) error {
	keeper, name, err := t.secrets(c)
	if err != nil {
		return err
	}
	t.host.mu.Lock()
	entry, err := t.host.entryLocked(c.Infrastructure)
	t.host.mu.Unlock()
	if err != nil {
		return err
	}
	if entry.CallbackTo != "" {
		if keys[berth.ClusterOfferFile], err = t.host.headOffer(&entry, c.ID); err != nil {
			return err
		}
	}
	labels := map[string]string{berth.LabelInstance: t.host.store.Instance(), berth.LabelCluster: c.ID}
	if err := keeper.CreateSecret(ctx, name, labels, keys, false); err != nil {
		return told(err, "infrastructure %s can't keep the keys of cluster %s", c.Infrastructure, c.Name)
	}
	return nil
}

func (t clusterTasks) Keys(ctx context.Context, c *berth.Cluster) (map[string][]byte, error) {
	keeper, name, err := t.secrets(c)
	if err != nil {
		return nil, err
	}
	keys, err := keeper.Secret(ctx, name)
	var refusal *engine.Refusal
	if errors.As(err, &refusal) && refusal.Kind == engine.RefusedNotFound {
		return nil, berth.Errorf(berth.CodeUnavailable, "cluster %s has no keys yet", c.Name)
	}
	if err != nil {
		return nil, told(err, "the keys of cluster %s can't be read", c.Name)
	}
	return keys, nil
}

func (t clusterTasks) DeleteKeys(ctx context.Context, c *berth.Cluster) error {
	keeper, name, err := t.secrets(c)
	if err != nil {
		return err
	}
	if err := keeper.DeleteSecret(ctx, name, t.host.store.Instance()); err != nil {
		return told(err, "the keys of cluster %s can't be deleted", c.Name)
	}
	return nil
}
