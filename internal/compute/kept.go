package compute

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

const (
	// settleAfter gathers changes that come together.
	settleAfter = 30 * time.Millisecond
	// askEvery is how often a head is asked how its cluster stands.
	askEvery = time.Second
	// askTimeout bounds how long it may take to answer.
	askTimeout = 10 * time.Second
	// atOnce is how many members are made at the same time.
	atOnce = 32
)

// kept is one cluster that is kept.
type kept struct {
	keeper *Keeper
	id     string
	nudge  chan struct{}

	settled chan struct{} // closed once it was looked at
	settle  sync.Once

	head     Head   // nil while there is none to ask; mu guards its writes
	headPod  string // which it is
	keysMade bool
	adopted  bool
	fewer    map[string]time.Time

	mu      sync.Mutex // guards what follows: a head is asked beside all else
	asking  bool
	asked   time.Time
	state   *State
	stateAt time.Time
	trouble error
}

func newKept(k *Keeper, id string) *kept {
	return &kept{keeper: k, id: id, nudge: make(chan struct{}, 1), settled: make(chan struct{}), fewer: map[string]time.Time{}}
}

func (c *kept) wake() {
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// run keeps the cluster until it has ended, or ctx does.
func (c *kept) run(ctx context.Context) {
	changed, stop := c.keeper.tasks.Changes(c.id)
	defer stop()
	defer c.forget()
	defer c.settle.Do(func() { close(c.settled) })
	defer c.keeper.changed(c.id) // who watches sees that it is kept no more
	for ctx.Err() == nil {
		again, over, err := c.pass(ctx)
		if over || errors.Is(err, berth.ErrFenced) { // another server's by now; it is told to Drop it
			return
		}
		if err != nil && ctx.Err() == nil {
			c.keeper.log.Warn("a cluster can't be kept at the moment; trying again", "cluster", c.id, "error", err)
			again = againAfter
		}
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-changed:
			sleep(ctx, settleAfter)
		case <-c.nudge:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// forget lets go of the head.
func (c *kept) forget() {
	if c.head != nil {
		c.head.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head, c.headPod, c.state, c.trouble, c.asked = nil, "", nil, nil, time.Time{}
}

// pass looks at the cluster once: it decides, stores what it decided, and does it.
func (c *kept) pass(ctx context.Context) (again time.Duration, over bool, err error) {
	record, err := c.keeper.store.Cluster(ctx, c.id)
	if err != nil || record.Cluster.State.Terminal() {
		return 0, err == nil || berth.CodeOf(err) == berth.CodeNotFound, err
	}
	engine, ok := c.keeper.engines[record.Cluster.Engine]
	if !ok {
		return 0, true, berth.Errorf(berth.CodeUnsupported, "engine %s is not known to this version", record.Cluster.Engine)
	}
	before := record
	if !c.adopted {
		if err := c.adopt(ctx, &record); err != nil {
			return 0, false, err
		}
		c.adopted = true
	}
	v := view{now: time.Now().UTC(), engine: engine, record: record, fewer: c.fewer}
	if err := c.look(ctx, &v); err != nil {
		return 0, false, err
	}
	next, acts := decide(v)
	if next.Cluster.State == berth.ClusterStopping && v.record.Cluster.State != berth.ClusterStopping {
		acts.finish = false // what there is was not looked at
	}
	if acts.finish {
		return c.finish(ctx, next)
	}
	if !same(&next, &before) {
		if err := c.commit(ctx, &next); err != nil {
			return 0, false, err
		}
	}
	if v.head == nil || v.head.State != berth.StateRunning || v.state != nil || v.trouble != nil {
		c.settle.Do(func() { close(c.settled) })
	}
	return acts.again, false, c.do(ctx, &next, engine, &acts, &v)
}

func same(a, b *berth.ClusterRecord) bool {
	return reflect.DeepEqual(a.Cluster, b.Cluster) && reflect.DeepEqual(copied(a.Keeping), copied(b.Keeping))
}

func (c *kept) commit(ctx context.Context, r *berth.ClusterRecord) error {
	lease, err := c.keeper.lease(r.Cluster.Infrastructure)
	if err == nil {
		err = c.keeper.store.CommitCluster(ctx, lease, r)
	}
	if err != nil {
		c.adopted = false // members that were to be stored with it have to be found again
		return err
	}
	crash.Point("compute.committed")
	c.keeper.changed(c.id)
	return nil
}

// adopt finds members whose making was stored, while that they are members was
// not.
func (c *kept) adopt(ctx context.Context, r *berth.ClusterRecord) error {
	tasks, err := c.keeper.store.ClusterTasks(ctx, c.id, r.Cluster.Infrastructure)
	if err != nil {
		return err
	}
	r.Keeping = copied(r.Keeping)
	for i := range tasks {
		member := tasks[i].Spec.Cluster
		if member == nil || member.Cluster != c.id {
			continue
		}
		if member.Group == berth.HeadGroup {
			r.Keeping.Head = tasks[i].ID
			continue
		}
		if _, known := r.Keeping.Members[tasks[i].ID]; !known && tasks[i].CancelledAt == nil && !tasks[i].State.Terminal() {
			r.Keeping.Members[tasks[i].ID] = berth.Membership{Group: member.Group}
		}
		r.Keeping.Next[member.Group] = max(r.Keeping.Next[member.Group], member.Number)
	}
	return nil
}

// look sees how the tasks of the cluster stand, and what its head told last.
func (c *kept) look(ctx context.Context, v *view) error {
	if v.record.Cluster.State == berth.ClusterStopping {
		tasks, err := c.keeper.store.ClusterTasks(ctx, c.id, v.record.Cluster.Infrastructure)
		if err != nil {
			return err
		}
		v.left = len(tasks)
		v.workers = map[string]berth.Task{}
		for _, task := range tasks {
			v.workers[task.ID] = task
		}
		return nil
	}
	if id := v.record.Keeping.Head; id != "" {
		head, err := c.keeper.tasks.Task(ctx, id)
		if err != nil {
			return err
		}
		v.head = &head
		if head.State == berth.StateRunning {
			if v.address, err = c.keeper.tasks.Address(ctx, id); err != nil {
				return err
			}
			c.ask(ctx, v)
		}
	}
	v.workers = make(map[string]berth.Task, len(v.record.Keeping.Members))
	for id := range v.record.Keeping.Members {
		task, err := c.keeper.tasks.Task(ctx, id)
		if err != nil && berth.CodeOf(err) != berth.CodeNotFound {
			return err
		}
		v.workers[id] = task
	}
	return nil
}

// ask has the head asked how the cluster stands, if that is due, and takes what it
// told last.
func (c *kept) ask(ctx context.Context, v *view) {
	if pod := *v.head.Pod; c.headPod != pod {
		c.forget()
		cluster := v.record.Cluster
		port := v.engine.Port(berth.ClusterDashboard)
		head := v.engine.Connect(&cluster, func(ctx context.Context) (net.Conn, error) {
			return c.keeper.tasks.Dial(ctx, cluster.Infrastructure, pod, port)
		})
		c.mu.Lock() // one that was asked before may still answer
		c.head, c.headPod = head, pod
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v.state, v.stateAt, v.trouble = c.state, c.stateAt, c.trouble
	every := askEvery
	if v.state == nil {
		every /= 4 // somebody waits for it to start
	}
	if c.asking || v.now.Sub(c.asked) < every {
		return
	}
	c.asking, c.asked = true, v.now
	go c.askNow(ctx, c.head)
}

func (c *kept) askNow(ctx context.Context, head Head) {
	began := time.Now().UTC()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	state, err := head.State(ctx)
	c.mu.Lock()
	c.asking = false
	if c.head == head {
		c.trouble = err
		switch {
		case err == nil:
			c.state, c.stateAt = state, began
		case began.Sub(c.stateAt) > freshFor:
			c.state = nil // one answer that is missing says nothing
		}
	}
	c.mu.Unlock()
	c.wake()
}

// do does what was decided. What fails is tried again at the next pass.
func (c *kept) do(ctx context.Context, r *berth.ClusterRecord, engine Engine, acts *acts, v *view) error {
	switch {
	case r.Cluster.State == berth.ClusterStopping:
		return c.cancelAll(ctx, v)
	case acts.makeHead:
		return c.makeHead(ctx, r, engine)
	}
	if err := c.makeWorkers(ctx, r, engine, acts.make, v.address); err != nil {
		return err
	}
	if len(acts.drain) > 0 && c.head != nil {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if err := c.head.Drain(ctx, acts.drain); err != nil {
			c.keeper.log.Warn("workers can't be drained at the moment; trying again", "cluster", c.id, "error", err)
		}
		crash.Point("compute.drain-asked")
	}
	return c.cancel(ctx, acts.cancel)
}

func (c *kept) cancel(ctx context.Context, tasks []string) error {
	var all errgroup.Group
	all.SetLimit(atOnce)
	for _, id := range tasks {
		all.Go(func() error {
			err := c.keeper.tasks.Cancel(ctx, id)
			crash.Point("compute.cancelled")
			return err
		})
	}
	return all.Wait()
}

// cancelAll ends every task of a cluster that stops.
func (c *kept) cancelAll(ctx context.Context, v *view) error {
	tasks, err := c.keeper.store.ClusterTasks(ctx, c.id, v.record.Cluster.Infrastructure)
	if err != nil {
		return err
	}
	var live []string
	for i := range tasks {
		if !tasks[i].State.Terminal() && tasks[i].CancelledAt == nil {
			live = append(live, tasks[i].ID)
		}
	}
	err = c.cancel(ctx, live)
	if len(tasks) == 0 {
		c.wake() // nothing will change any more
	}
	return err
}

// finish ends a cluster of which nothing is left but its keys.
func (c *kept) finish(ctx context.Context, r berth.ClusterRecord) (time.Duration, bool, error) {
	if err := c.keeper.tasks.DeleteKeys(ctx, &r.Cluster); err != nil {
		return 0, false, fmt.Errorf("the Secret with its keys can't be deleted: %w", err)
	}
	crash.Point("compute.keys-deleted")
	if r.Keeping.Head != "" {
		head, err := c.keeper.tasks.Task(ctx, r.Keeping.Head)
		if err != nil {
			return 0, false, err
		}
		r.Cluster.Head.State = &head.State
	}
	now := time.Now().UTC()
	r.Cluster.State, r.Cluster.FinishedAt = berth.ClusterStopped, &now
	if r.Keeping.Failed {
		r.Cluster.State = berth.ClusterFailed
	}
	for i := range r.Cluster.Groups {
		r.Cluster.Groups[i].Draining = 0
	}
	r.Keeping = berth.ClusterKeeping{}
	return 0, true, c.commit(ctx, &r)
}

// makeHead makes the keys, and the head.
func (c *kept) makeHead(ctx context.Context, r *berth.ClusterRecord, engine Engine) error {
	if !c.keysMade {
		keys, err := newKeys(berth.ClusterSecretName(c.id), time.Now())
		if err == nil {
			maps.Copy(keys, engine.Files())
			err = c.keeper.tasks.MakeKeys(ctx, &r.Cluster, keys)
		}
		if err != nil {
			return c.cannot(ctx, r, err)
		}
		c.keysMade = true
		crash.Point("compute.keys-made")
	}
	spec := r.Cluster.Spec.TaskSpec(r.Cluster.Spec.Head, 0, c.id)
	spec.Infrastructure = r.Cluster.Infrastructure
	engine.Head(&r.Cluster, &spec)
	task, err := c.keeper.tasks.Submit(ctx, r.Caller, memberKey(c.id, berth.HeadGroup, 0), spec)
	if err != nil {
		return c.cannot(ctx, r, err)
	}
	crash.Point("compute.head-made")
	r.Keeping.Head, r.Cluster.Head.Task, r.Cluster.Head.State = task.ID, &task.ID, &task.State
	c.wake()
	return c.commit(ctx, r)
}

// memberKey is the idempotency key of a member: no number is made twice. What
// people submit has keys that begin with their names.
func memberKey(id, group string, number int) string {
	return fmt.Sprintf("/cluster/%s/%s/%d", id, group, number)
}

// cannot ends a cluster whose head will never be made, or says what is waited for.
func (c *kept) cannot(ctx context.Context, r *berth.ClusterRecord, err error) error {
	if ctx.Err() != nil {
		return err
	}
	reason := err.Error()
	r.Cluster.Reason = &reason
	var told *berth.Error
	if errors.As(err, &told) {
		r.Cluster.Diagnosis = told.Diagnosis
	}
	if berth.Lasting(err) {
		r.Cluster.State, r.Keeping.Failed = berth.ClusterStopping, true
		c.wake()
		return c.commit(ctx, r)
	}
	return errors.Join(err, c.commit(ctx, r))
}

// makeWorkers makes workers, whose numbers are stored: one whose making fails is
// made with another number later.
func (c *kept) makeWorkers(ctx context.Context, r *berth.ClusterRecord, engine Engine, orders []order, address string) error {
	if len(orders) == 0 {
		return nil
	}
	made := make([]berth.Task, len(orders))
	errs := make([]error, len(orders))
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i, o := range orders {
		all.Go(func() error {
			spec := r.Cluster.Spec.TaskSpec(o.group, o.number, c.id)
			spec.Infrastructure = r.Cluster.Infrastructure
			engine.Worker(&r.Cluster, &o.group, address, &spec)
			made[i], errs[i] = c.keeper.tasks.Submit(ctx, r.Caller, memberKey(c.id, o.group.Name, o.number), spec)
			crash.Point("compute.worker-made")
			return nil
		})
	}
	_ = all.Wait() // errs has the errors
	for i := range orders {
		group := orders[i].group.Name
		if errs[i] == nil {
			r.Keeping.Members[made[i].ID] = berth.Membership{Group: group}
			continue
		}
		if ctx.Err() != nil {
			continue
		}
		c.refused(r, group, errs[i])
	}
	if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		c.adopted = false // one whose answer was lost may be there
	}
	c.wake()
	return c.commit(context.WithoutCancel(ctx), r)
}

// refused takes in that a worker could not be made, as if it had ended at once.
func (c *kept) refused(r *berth.ClusterRecord, group string, err error) {
	now := time.Now().UTC()
	f := r.Keeping.Failing[group]
	if berth.Lasting(err) {
		f.Count++
	}
	f.At, f.Until = now, now.Add(againAfter)
	var told *berth.Error
	if errors.As(err, &told) && told.Diagnosis != nil {
		f.Diagnosis = told.Diagnosis
	} else {
		f.Diagnosis = &berth.Diagnosis{Cause: berth.CauseUnknown, Summary: err.Error(), Evidence: []berth.Evidence{}, Since: now}
	}
	r.Keeping.Failing[group] = f
}
