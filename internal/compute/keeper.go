package compute

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// Store keeps clusters; see package store.
type Store interface {
	Cluster(ctx context.Context, id string) (berth.ClusterRecord, error)
	ClustersOf(ctx context.Context, infrastructure string) ([]berth.ClusterRecord, error)
	ClusterTasks(ctx context.Context, id, infrastructure string) ([]berth.Task, error)
	CommitCluster(ctx context.Context, lease berth.Lease, r *berth.ClusterRecord) error
}

// Tasks runs the members of clusters.
type Tasks interface {
	// Submit stores a task; the same key gives the same one.
	Submit(ctx context.Context, caller berth.Caller, key string, spec berth.TaskSpec) (berth.Task, error)
	Task(ctx context.Context, id string) (berth.Task, error)
	Cancel(ctx context.Context, id string) error
	// Address is the IP address of a task's pod, empty while it isn't known.
	Address(ctx context.Context, id string) (string, error)
	// Changes has a value after each change of a task of a cluster.
	Changes(cluster string) (changed <-chan struct{}, stop func())
	// Dial connects to a port on the loopback of a pod.
	Dial(ctx context.Context, infrastructure, pod string, port int) (net.Conn, error)

	// MakeKeys keeps the key pair of a cluster in its namespace, unless there is
	// one; Keys returns it, and DeleteKeys deletes it, if there is one.
	MakeKeys(ctx context.Context, c *berth.Cluster, keys map[string][]byte) error
	Keys(ctx context.Context, c *berth.Cluster) (map[string][]byte, error)
	DeleteKeys(ctx context.Context, c *berth.Cluster) error
}

// againAfter is when something is tried again that failed.
const againAfter = 2 * time.Second

// Keeper keeps the clusters of the infrastructures that it was given.
type Keeper struct {
	store   Store
	tasks   Tasks
	engines map[string]Engine
	lease   func(infrastructure string) (berth.Lease, error)
	log     *slog.Logger
	ctx     context.Context
	end     context.CancelFunc

	mu       sync.Mutex
	taken    map[string]*taken // by infrastructure
	watchers map[string]map[chan struct{}]struct{}
}

// taken is one infrastructure whose clusters are kept.
type taken struct {
	ctx   context.Context
	end   context.CancelFunc
	wg    sync.WaitGroup
	nudge chan struct{}
	kept  map[string]*kept // by the cluster's id; the Keeper's lock guards it
}

// New returns a Keeper that keeps nothing yet. lease gives the lease that is to
// be held for what is stored of an infrastructure; the zero one: none.
func New(store Store, tasks Tasks, engines map[string]Engine, lease func(infrastructure string) (berth.Lease, error), log *slog.Logger) *Keeper {
	k := &Keeper{store: store, tasks: tasks, engines: engines, lease: lease, log: log, taken: map[string]*taken{}, watchers: map[string]map[chan struct{}]struct{}{}}
	k.ctx, k.end = context.WithCancel(context.Background())
	return k
}

// Take begins to keep the clusters of an infrastructure.
func (k *Keeper) Take(infrastructure string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.taken[infrastructure] != nil || k.ctx.Err() != nil {
		return
	}
	t := &taken{nudge: make(chan struct{}, 1), kept: map[string]*kept{}}
	t.ctx, t.end = context.WithCancel(k.ctx)
	k.taken[infrastructure] = t
	t.wg.Go(func() { k.find(t, infrastructure) })
}

// find begins to keep the clusters that there are, once it is known which.
func (k *Keeper) find(t *taken, infrastructure string) {
	for {
		records, err := k.store.ClustersOf(t.ctx, infrastructure)
		if err == nil {
			for i := range records {
				k.keep(t, records[i].Cluster.ID)
			}
			return
		}
		if t.ctx.Err() != nil {
			return
		}
		k.log.Error("cannot see which clusters there are; trying again", "infrastructure", infrastructure, "error", err)
		if !sleep(t.ctx, againAfter) {
			return
		}
	}
}

// Begin begins to keep a cluster that was stored.
func (k *Keeper) Begin(id, infrastructure string) {
	crash.Point("compute.added")
	k.mu.Lock()
	t := k.taken[infrastructure]
	k.mu.Unlock()
	if t != nil {
		k.keep(t, id)
	}
}

func (k *Keeper) keep(t *taken, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.kept[id] != nil || t.ctx.Err() != nil {
		return
	}
	c := newKept(k, id)
	t.kept[id] = c
	t.wg.Go(func() {
		c.run(t.ctx)
		k.mu.Lock()
		delete(t.kept, id)
		k.mu.Unlock()
	})
}

// Nudge has a cluster looked at now: what is wanted of it has changed.
func (k *Keeper) Nudge(id, infrastructure string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.taken[infrastructure]; t != nil && t.kept[id] != nil {
		t.kept[id].wake()
	}
}

// Settle waits until a cluster that is kept here was looked at once, its head too
// where that can be asked.
func (k *Keeper) Settle(ctx context.Context, id, infrastructure string) {
	k.mu.Lock()
	var c *kept
	if t := k.taken[infrastructure]; t != nil {
		c = t.kept[id]
	}
	k.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case <-c.settled:
	case <-ctx.Done():
	}
}

// Drop leaves an infrastructure's clusters to another.
func (k *Keeper) Drop(infrastructure string) {
	k.mu.Lock()
	t := k.taken[infrastructure]
	delete(k.taken, infrastructure)
	if t != nil {
		t.end()
	}
	k.mu.Unlock()
	if t != nil {
		t.wg.Wait()
	}
}

// Close keeps nothing any more; the clusters go on.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.end()
	all := k.taken
	k.taken = map[string]*taken{}
	k.mu.Unlock()
	for _, t := range all {
		t.wg.Wait()
	}
}

// Watch returns a channel that has a value after each change of a cluster that is
// kept here.
func (k *Keeper) Watch(id string) (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.watchers[id] == nil {
		k.watchers[id] = map[chan struct{}]struct{}{}
	}
	k.watchers[id][ch] = struct{}{}
	return ch, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if delete(k.watchers[id], ch); len(k.watchers[id]) == 0 {
			delete(k.watchers, id)
		}
	}
}

// changed tells those who watch a cluster.
func (k *Keeper) changed(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ch := range k.watchers[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Dial connects to a port of a cluster's head.
func (k *Keeper) Dial(ctx context.Context, c *berth.Cluster, port berth.ClusterPort) (net.Conn, error) {
	if c.State.Terminal() || c.State == berth.ClusterStopping {
		return nil, berth.Errorf(berth.CodeConflict, "cluster %s is %s", c.Name, c.State)
	}
	if c.Head.Task == nil {
		return nil, berth.Errorf(berth.CodeUnavailable, "cluster %s has no head yet", c.Name)
	}
	head, err := k.tasks.Task(ctx, *c.Head.Task)
	if err != nil {
		return nil, err
	}
	if head.State != berth.StateRunning || head.Pod == nil {
		return nil, berth.Errorf(berth.CodeUnavailable, "the head of cluster %s is %s: berth cluster get %s tells what it waits for", c.Name, head.State, c.Name)
	}
	engine, ok := k.engines[c.Engine]
	if !ok {
		return nil, berth.Errorf(berth.CodeUnsupported, "engine %s of cluster %s is not known to this version", c.Engine, c.Name)
	}
	return k.tasks.Dial(ctx, c.Infrastructure, *head.Pod, engine.Port(port))
}

// Access returns the key pair of a cluster.
func (k *Keeper) Access(ctx context.Context, c *berth.Cluster) (berth.ClusterAccess, error) {
	keys, err := k.tasks.Keys(ctx, c)
	if err != nil {
		return berth.ClusterAccess{}, err
	}
	return berth.ClusterAccess{CA: string(keys[berth.ClusterCAFile]), Certificate: string(keys[berth.ClusterCertFile]), Key: berth.Secret(keys[berth.ClusterKeyFile])}, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
