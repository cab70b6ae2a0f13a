package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/logs"
	"github.com/berth-run/berth/internal/store"
)

// cluster is a Driver whose pods do what the test says.
type cluster struct {
	mu          sync.Mutex
	pods        map[string]berth.Observation // that exist
	foreign     map[string]bool              // names taken by others
	created     []string                     // names, in order
	deleted     []string
	deletes     int     // calls
	watchLags   bool    // deletions are told later
	asked       []Order // by preflights
	onPreflight func(context.Context, Order) error
	onCreate    func(Order) error // before a pod is made
	afterCreate func(Order) error // the pod is made and the answer is this
	onFind      func(Order) error // before a pod is looked for
	onVouch     func() error      // before it is said whether there was one
	existed     func(pod string) bool
	deaf        bool // the network is cut
	autoEnd     bool
	sink        Sink
	identity    string
	identErr    error
	vouched     bool
	vouchErr    error
	logText     string
	onLogs      func(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) // instead
	quota       chan struct{}
	watched     chan struct{} // one for each watch that began
	next        int
	usageCalls  int
	readings    func() map[string]berth.Reading
	usageErr    error
}

func newCluster() *cluster {
	return &cluster{pods: map[string]berth.Observation{}, foreign: map[string]bool{}, identity: "ns-uid", quota: make(chan struct{}, 10), watched: make(chan struct{}, 100), readings: func() map[string]berth.Reading { return nil }}
}

func (c *cluster) Watch(ctx context.Context, sink Sink) {
	c.mu.Lock()
	if ctx.Err() == nil { // or another process watches by now
		c.sink = sink
		if c.deaf {
			sink.Lost(unreachable)
		} else {
			c.list()
		}
	}
	c.mu.Unlock()
	select {
	case c.watched <- struct{}{}:
	case <-ctx.Done():
	}
	<-ctx.Done()
}

// list tells the sink of all pods; c.mu is held.
func (c *cluster) list() {
	var all []berth.Observation
	for _, o := range c.pods {
		all = append(all, o)
	}
	c.sink.Listed(all, time.Now())
}

func (c *cluster) Preflight(ctx context.Context, order Order) error {
	c.mu.Lock()
	c.asked = append(c.asked, order)
	answer := c.onPreflight
	c.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, order)
}

func (c *cluster) Create(_ context.Context, order Order) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onCreate != nil {
		if err := c.onCreate(order); err != nil {
			return "", err
		}
	}
	if c.foreign[order.Pod] {
		return "", &Refusal{Kind: RefusedExists, Err: errors.New("exists")}
	}
	if _, ok := c.pods[order.Pod]; ok {
		return "", &Refusal{Kind: RefusedExists, Err: errors.New("exists")}
	}
	c.next++
	o := berth.Observation{TaskID: order.TaskID, Attempt: order.Attempt, Pod: order.Pod, UID: fmt.Sprintf("uid-%d", c.next), Node: "n1"}
	c.pods[order.Pod] = o
	c.created = append(c.created, order.Pod)
	if c.autoEnd {
		c.end(order.Pod, 0)
	}
	if c.afterCreate != nil {
		if err := c.afterCreate(order); err != nil {
			return "", err
		}
	}
	return o.UID, nil
}

// end lets a pod end; c.mu is held.
func (c *cluster) end(pod string, code int) {
	o := c.pods[pod]
	o.StartedAt, o.EndedAt = time.Now(), time.Now()
	o.Outcome = &berth.Outcome{ExitCode: &code}
	if code != 0 {
		o.Outcome.Diagnosis = &berth.Diagnosis{Cause: berth.CauseExitedNonZero, Summary: "it ended"}
	}
	c.pods[pod] = o
	if c.sink != nil {
		c.sink.Observed(o)
	}
}

func (c *cluster) ends(pod string, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(pod, code)
}

func (c *cluster) Find(_ context.Context, order Order) (string, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onFind != nil {
		if err := c.onFind(order); err != nil {
			return "", false, err
		}
	}
	if c.foreign[order.Pod] {
		return "foreign", false, nil
	}
	o, ok := c.pods[order.Pod]
	if !ok {
		return "", false, &Refusal{Kind: RefusedNotFound, Err: errors.New("not found")}
	}
	return o.UID, true, nil
}

func (c *cluster) Vouch(_ context.Context, pod string, _ time.Time) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onVouch != nil {
		if err := c.onVouch(); err != nil {
			return false, err
		}
	}
	if c.existed != nil {
		return c.existed(pod), nil
	}
	return c.vouched, c.vouchErr
}

func (c *cluster) Delete(_ context.Context, pod, uid string, _ time.Duration) (Deletion, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deletes++
	o, ok := c.pods[pod]
	if !ok || o.UID != uid {
		return DeletionGone, nil
	}
	delete(c.pods, pod)
	c.deleted = append(c.deleted, pod)
	o.Gone = true
	if c.sink != nil && !c.watchLags {
		c.sink.Observed(o)
	}
	return DeletionGone, nil
}

func (c *cluster) Logs(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) {
	if c.onLogs != nil {
		return c.onLogs(ctx, pod, since, follow)
	}
	return io.NopCloser(strings.NewReader(c.logText)), nil
}

func (c *cluster) Identity(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf {
		return "", unreachable
	}
	return c.identity, c.identErr
}
func (c *cluster) Server() string                          { return "https://cluster" }
func (c *cluster) Version(context.Context) (string, error) { return "v1.34.4", nil }
func (c *cluster) Check(context.Context) (berth.InfrastructureCheck, error) {
	return berth.InfrastructureCheck{}, nil
}

func (c *cluster) Usage(context.Context) (map[string]berth.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usageCalls++
	return c.readings(), c.usageErr
}

func (c *cluster) WatchQuota(ctx context.Context, changed func()) error {
	for {
		select {
		case <-c.quota:
			changed()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// existing is a pod that has not ended.
func (c *cluster) existing() (pod string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, o := range c.pods {
		if o.Outcome == nil {
			pod = name
		}
	}
	return pod
}

func (c *cluster) counts() (created, deleted, existing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.created), len(c.deleted), len(c.pods)
}

type logKeeper struct{ *logs.Store }

func (k logKeeper) Append(task string, attempt int, fresh bool) (LogWriter, error) {
	return k.Store.Append(task, attempt, fresh)
}

type plainTexts struct{}

func (plainTexts) Lost(string, *berth.Task) *berth.Diagnosis {
	return &berth.Diagnosis{Cause: berth.CauseDeletedExternally, Summary: "the pod is gone"}
}

func (plainTexts) StartTimedOut(_ string, _ *berth.Task, limit time.Duration) *berth.Diagnosis {
	return &berth.Diagnosis{Cause: berth.CauseStartTimedOut, Summary: "it did not start within " + limit.String()}
}

// process is a control plane on a data directory; ending it is a crash.
type process struct {
	t      *testing.T
	dir    string
	store  *store.Store
	engine *Engine
}

func start(t *testing.T, dir string, c *cluster, config berth.InfrastructureConfig) *process {
	t.Helper()
	return startAt(t, dir, c, config, time.Now)
}

// startWatching starts a process and waits for its watch: the node of a pod that is
// made before it is an event more.
func startWatching(t *testing.T, c *cluster) *process {
	t.Helper()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	select {
	case <-c.watched:
	case <-time.After(20 * time.Second):
		t.Fatal("the cluster isn't watched")
	}
	return p
}

// startAt starts a process whose clock is now.
func startAt(t *testing.T, dir string, c *cluster, config berth.InfrastructureConfig, now func() time.Time, prepare ...func(*Engine)) *process {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(dir, "berth.db"))
	if err != nil {
		t.Fatal(err)
	}
	logStore, err := logs.Open(filepath.Join(dir, "logs"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, dir: dir, store: st, engine: New(st, logKeeper{logStore}, plainTexts{}, plainAgents{}, slog.New(slog.DiscardHandler))}
	p.engine.now = now
	for _, fn := range prepare {
		fn(p.engine)
	}
	t.Cleanup(p.crash)
	config.Name = "here"
	if config.Grace == (berth.Grace{}) {
		config.Grace = berth.DefaultGrace
	}
	if err := p.engine.Start(t.Context(), config, c); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) crash() {
	if p.engine == nil {
		return
	}
	p.engine.cancel() // no orderly end
	p.engine.wg.Wait()
	p.store.Close()
	p.engine = nil
}

func (p *process) submit(change func(*berth.TaskSpec)) berth.Task {
	p.t.Helper()
	spec := berth.TaskSpec{Image: "busybox", Infrastructure: "here"}
	if change != nil {
		change(&spec)
	}
	task, err := p.engine.Submit(p.t.Context(), "ann", "ann", berth.Submission{Spec: spec})
	if err != nil {
		p.t.Fatal(err)
	}
	return task
}

// until waits until a task is as it should be.
func (p *process) until(id string, holds func(berth.Task) bool) berth.Task {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	changed, stop := p.engine.hub.watch(id)
	defer stop()
	for {
		task, err := p.engine.Task(ctx, id)
		if err != nil {
			p.t.Fatal(err)
		}
		if holds(task) {
			return task
		}
		select {
		case <-changed:
		case <-ctx.Done():
			p.t.Fatalf("task %s stays as it is: %s, %v", id, task.State, task.Diagnosis)
		}
	}
}

func (p *process) settled(id string) *berth.Life {
	p.t.Helper()
	var life *berth.Life
	p.until(id, func(berth.Task) bool {
		var err error
		if life, err = p.store.Life(p.t.Context(), id); err != nil {
			p.t.Fatal(err)
		}
		return life.Settled()
	})
	return life
}

// plainAgents gives every agent an order of its own.
type plainAgents struct{}

func (plainAgents) Proxy(context.Context, berth.InfrastructureConfig) (*Proxy, error) {
	return nil, nil
}

func (plainAgents) Prepare(_ context.Context, _ berth.InfrastructureConfig, order Order) (*Agent, error) {
	return &Agent{Order: agent.Order{Task: order.TaskID, Attempt: order.Attempt, Pod: order.Pod, Steps: order.Spec.Steps}}, nil
}
func (plainAgents) Nonce(pod string) string { return "nonce-" + pod }
func (plainAgents) Completed(_ string, _ *berth.Task, c *agent.Completion) *berth.Diagnosis {
	if c.ExitCode == 0 {
		return nil
	}
	return &berth.Diagnosis{Cause: berth.CauseExitedNonZero, Summary: fmt.Sprintf("exit code %d", c.ExitCode)}
}
