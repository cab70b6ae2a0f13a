package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
)

var (
	errDead = errors.New("the process is dead")
	errAway = berth.Errorf(berth.CodeUnavailable, "it is out of reach")
	errLost = fmt.Errorf("it was done, and the answer lost: %w", errAway)
)

// world is the Store, the Tasks and the Head of one cluster. Pods start and end at
// once.
type world struct {
	mu      sync.Mutex
	stored  []byte // the record
	wanted  berth.ClusterWanted
	tasks   []*berth.Task
	bykey   map[string]*berth.Task
	drained map[string]bool
	keys    map[string][]byte
	changes chan struct{}
	waiting bool // pods do not start

	done    []string // what was done
	crashAt int      // at which of it the process dies; 0: never
	after   bool     // it was done, and nobody was told
	dead    bool
	errs    map[string][]error // of the next calls
}

func newWorld(groups ...berth.ClusterGroup) *world {
	w := &world{bykey: map[string]*berth.Task{}, drained: map[string]bool{}, changes: make(chan struct{}, 1), errs: map[string][]error{}}
	r := newRecord(groups...)
	r.Cluster.CreatedAt = time.Now().UTC()
	w.put(&r)
	return w
}

func (w *world) put(r *berth.ClusterRecord) {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	w.stored = text
}

func (w *world) record() (r berth.ClusterRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := json.Unmarshal(w.stored, &r); err != nil {
		panic(err)
	}
	r.Wanted = w.wanted
	r.Wanted.Apply(&r.Cluster.Spec)
	return r
}

func (w *world) cluster() berth.Cluster { return w.record().Cluster }

// act does something, unless the process dies of it.
func (w *world) act(what string, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errDead
	}
	kind, _, _ := strings.Cut(what, " ")
	if errs := w.errs[kind]; len(errs) > 0 {
		w.errs[kind] = errs[1:]
		if errors.Is(errs[0], errLost) {
			if err := do(); err != nil {
				return err
			}
		}
		if errs[0] != nil {
			return errs[0]
		}
	}
	w.done = append(w.done, what)
	if w.dead = len(w.done) == w.crashAt; w.dead && !w.after {
		return errDead
	}
	err := do()
	if w.dead {
		return errDead
	}
	return err
}

func (w *world) Cluster(context.Context, string) (berth.ClusterRecord, error) { return w.record(), nil }

func (w *world) ClustersOf(context.Context, string) ([]berth.ClusterRecord, error) {
	if r := w.record(); !r.Cluster.State.Terminal() {
		return []berth.ClusterRecord{r}, nil
	}
	return nil, nil
}

func (w *world) ClusterTasks(context.Context, string, string) ([]berth.Task, error) {
	return w.live(), nil
}

func (w *world) live() (live []berth.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, task := range w.tasks {
		if !task.State.Terminal() {
			live = append(live, *task)
		}
	}
	return live
}

func (w *world) CommitCluster(_ context.Context, _ berth.Lease, r *berth.ClusterRecord) error {
	return w.act("commit "+string(r.Cluster.State), func() error { w.put(r); return nil })
}

func (w *world) Submit(_ context.Context, caller berth.Caller, key string, spec berth.TaskSpec) (task berth.Task, err error) {
	if caller.Name != "ada" || spec.Infrastructure != "here" {
		return task, fmt.Errorf("%s submits to %s", caller.Name, spec.Infrastructure)
	}
	err = w.act("submit "+strings.Join(spec.Args, " "), func() error {
		if w.bykey[key] == nil {
			made := &berth.Task{ID: fmt.Sprintf("t%03d", len(w.tasks)), State: berth.StateQueued, Spec: spec}
			if !w.waiting {
				pod := made.ID + "-pod"
				made.State, made.Pod = berth.StateRunning, &pod
			}
			w.tasks, w.bykey[key] = append(w.tasks, made), made
		}
		task = *w.bykey[key]
		return nil
	})
	return task, err
}

func (w *world) find(id string) *berth.Task {
	return w.tasks[slices.IndexFunc(w.tasks, func(task *berth.Task) bool { return task.ID == id })]
}

func (w *world) Task(_ context.Context, id string) (berth.Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.find(id), nil
}

func (w *world) Cancel(_ context.Context, id string) error {
	return w.act("cancel "+id, func() error {
		now := time.Now()
		task := w.find(id)
		task.State, task.CancelledAt = berth.StateCancelled, &now
		w.changed()
		return nil
	})
}

func (w *world) changed() {
	select {
	case w.changes <- struct{}{}:
	default:
	}
}

func (w *world) Address(context.Context, string) (string, error) { return "10.0.0.1", nil }

func (w *world) Changes(string) (<-chan struct{}, func()) { return w.changes, func() {} }

func (w *world) Dial(context.Context, string, string, int) (net.Conn, error) {
	return nil, berth.Errorf(berth.CodeUnavailable, "it is no network")
}

func (w *world) MakeKeys(_ context.Context, _ *berth.Cluster, keys map[string][]byte) error {
	return w.act("keys made", func() error {
		if w.keys == nil {
			w.keys = keys
		}
		return nil
	})
}

func (w *world) Keys(context.Context, *berth.Cluster) (map[string][]byte, error) { return w.keys, nil }

func (w *world) DeleteKeys(context.Context, *berth.Cluster) error {
	return w.act("unkeys", func() error {
		if slices.ContainsFunc(w.tasks, func(task *berth.Task) bool { return !task.State.Terminal() }) {
			return errors.New("somebody needs them")
		}
		w.keys = nil
		return nil
	})
}

func (w *world) State(context.Context) (*State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &State{Workers: map[string]Worker{}, Unfinished: 1}
	for _, task := range w.tasks[1:] {
		if task.State == berth.StateRunning {
			s.Workers[*task.Pod] = Worker{Running: true, Draining: w.drained[*task.Pod], Drained: w.drained[*task.Pod]}
		}
	}
	return s, nil
}

func (w *world) Drain(_ context.Context, workers []string) error {
	return w.act("drain "+strings.Join(workers, " "), func() error {
		for _, pod := range workers {
			w.drained[pod] = true
		}
		return nil
	})
}

func (w *world) Close() {}

func (w *world) scale(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted.Sizes = map[string]berth.GroupSize{"workers": {Count: n, At: time.Now().UTC()}}
}

func (w *world) delete() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().UTC()
	w.wanted.DeletedAt = &now
}

// keeper begins to keep the cluster. Whoever kept it before is dead.
func (w *world) keeper() *Keeper {
	k := New(w, w, map[string]Engine{"fake": fakeEngine{func() Head { return w }}}, func(string) (berth.Lease, error) { return berth.Lease{}, nil }, slog.New(slog.DiscardHandler))
	k.Take("here")
	return k
}

// until waits until something is so; another goes on where a Keeper died.
func (w *world) until(t *testing.T, k *Keeper, what string, is func(*berth.Cluster) bool) *Keeper {
	t.Helper()
	for range 6000 {
		c := w.cluster()
		if is(&c) {
			return k
		}
		w.mu.Lock()
		died := w.dead
		w.mu.Unlock()
		if died {
			k.Close()
			w.mu.Lock()
			w.dead = false
			w.mu.Unlock()
			k = w.keeper()
		}
		time.Sleep(100 * time.Millisecond) // the clock is the test's own
	}
	t.Fatalf("it is never %s: %s\nafter %q", what, asJSON(w.record()), w.done)
	return nil
}

func ready(n int) func(*berth.Cluster) bool {
	return func(c *berth.Cluster) bool {
		return c.State == berth.ClusterRunning && len(c.Groups) == 1 && c.Groups[0].Wanted == n && c.Groups[0].Ready == n && c.Groups[0].Waiting+c.Groups[0].Draining == 0
	}
}

func terminal(c *berth.Cluster) bool { return c.State.Terminal() }

// whole has a cluster live from the beginning to its end.
func (w *world) whole(t *testing.T) {
	t.Helper()
	k := w.keeper()
	for _, n := range []int{2, 4, 1} {
		w.scale(n)
		k.Nudge(clusterID, "here")
		k = w.until(t, k, fmt.Sprintf("of %d workers", n), ready(n))
		if live := w.live(); len(live) != n+1 {
			t.Errorf("%d tasks for a head and %d workers", len(live), n)
		}
	}
	w.delete()
	k.Nudge(clusterID, "here")
	k = w.until(t, k, "over", terminal)
	k.Close()
	made := map[berth.ClusterMember]bool{}
	for _, task := range w.tasks {
		if made[*task.Spec.Cluster] {
			t.Errorf("made twice: %+v", *task.Spec.Cluster)
		}
		made[*task.Spec.Cluster] = true
	}
	if live := w.live(); len(live) > 0 || w.keys != nil {
		t.Errorf("%d tasks and %d keys are left", len(live), len(w.keys))
	}
	if c := w.cluster(); c.State != berth.ClusterStopped || c.FinishedAt == nil || *c.Reason != "it was deleted" || *c.Head.State != berth.StateCancelled || len(c.Groups[0].Lost) > 0 {
		t.Errorf("%s", asJSON(c))
	}
}

func TestAClusterLivesFromItsHeadToItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(2))
		w.whole(t)
		want := "keys made, submit head, submit worker 10.0.0.1, submit worker 10.0.0.1, submit worker 10.0.0.1, submit worker 10.0.0.1"
		var but []string
		for _, what := range w.done {
			if !strings.HasPrefix(what, "commit") && !strings.HasPrefix(what, "cancel") && !strings.HasPrefix(what, "drain") {
				but = append(but, what)
			}
		}
		if got := strings.Join(but, ", "); got != want+", unkeys" {
			t.Errorf("it did %s, want %s", got, want)
		}
	})
}

func TestWhoeverGoesOnAfterACrashDoesAsTheOneBeforeWouldHave(t *testing.T) {
	points := 0
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(2))
		w.whole(t)
		points = len(w.done)
	})
	for point := 1; point <= points; point++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, done: %v", point, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(fixed(2))
					w.crashAt, w.after = point, after
					w.whole(t)
				})
			})
		}
	}
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	for _, kind := range []string{"keys", "submit", "commit", "cancel", "unkeys", "drain"} {
		for before := range 4 {
			for _, err := range []error{errAway, errLost} {
				t.Run(fmt.Sprintf("%s after %d: %s", kind, before, err), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(fixed(2))
						w.errs[kind] = append(make([]error, before), err, err)
						w.whole(t)
					})
				})
			}
		}
	}
}

func TestAClusterWhoseHeadIsRefusedFails(t *testing.T) {
	refused := &berth.Error{Code: berth.CodeForbidden, Message: "no", Diagnosis: &berth.Diagnosis{Cause: berth.CauseForbidden, Evidence: []berth.Evidence{}}}
	for _, kind := range []string{"keys", "submit"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(fixed(2))
			w.errs[kind] = []error{refused}
			w.until(t, w.keeper(), "over", terminal).Close()
			if c := w.cluster(); c.State != berth.ClusterFailed || *c.Reason != "no" || c.Diagnosis == nil || c.Diagnosis.Cause != berth.CauseForbidden || w.keys != nil {
				t.Errorf("%s: %s", kind, asJSON(c))
			}
		})
	}
}

func TestWorkersThatAreRefusedAreGivenUpUntilSomebodyScales(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(2))
		refused := &berth.Error{Code: berth.CodeForbidden, Message: "no", Diagnosis: &berth.Diagnosis{Cause: berth.CausePodSecurityViolated, Evidence: []berth.Evidence{}}}
		w.errs["submit"] = append([]error{nil}, slices.Repeat([]error{refused}, failingLimit)...)
		k := w.until(t, w.keeper(), "given up", func(c *berth.Cluster) bool { return len(c.Warnings) > 0 })
		if c := w.cluster(); c.State != berth.ClusterRunning || c.Groups[0].Diagnosis == nil || c.Groups[0].Diagnosis.Cause != berth.CausePodSecurityViolated {
			t.Errorf("%s", asJSON(c))
		}
		time.Sleep(time.Hour)
		if live := w.live(); len(live) != 1 {
			t.Errorf("%d tasks", len(live))
		}
		w.scale(3)
		k.Nudge(clusterID, "here")
		w.until(t, k, "of 3 workers", ready(3)).Close()
	})
}

func TestAClusterInWhichNothingHappensIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(2))
		k := w.until(t, w.keeper(), "of 2 workers", ready(2))
		synctest.Wait()
		before := len(w.done)
		time.Sleep(time.Hour)
		synctest.Wait()
		if idle := w.done[before:]; len(idle) > 0 {
			t.Errorf("%d writes, such as %s", len(idle), idle[0])
		}
		k.Close()
	})
}

func TestWhoIsFencedStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(2))
		k := w.until(t, w.keeper(), "of 2 workers", ready(2))
		w.mu.Lock()
		w.errs["commit"] = []error{berth.ErrFenced}
		w.mu.Unlock()
		w.scale(3)
		k.Nudge(clusterID, "here")
		synctest.Wait()
		before := len(w.done)
		time.Sleep(time.Hour)
		if later := w.done[before:]; len(later) > 0 || len(w.live()) != 3 {
			t.Errorf("it did %q", later)
		}
		k.Drop("here")
		k.Take("here") // the lease came back
		w.until(t, k, "of 3 workers", ready(3)).Close()
	})
}

func TestWhoWatchesSeesEachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(1))
		k := New(w, w, map[string]Engine{"fake": fakeEngine{func() Head { return w }}}, func(string) (berth.Lease, error) { return berth.Lease{}, nil }, slog.New(slog.DiscardHandler))
		changed, stop := k.Watch(clusterID)
		defer stop()
		k.Take("here")
		k.Begin(clusterID, "here") // it is kept once all the same
		states := []berth.ClusterState{berth.ClusterStarting}
		for !terminal(&berth.Cluster{State: states[len(states)-1]}) {
			<-changed
			c := w.cluster()
			if c.State != states[len(states)-1] {
				states = append(states, c.State)
			}
			if ready(1)(&c) && w.record().Wanted.DeletedAt == nil {
				w.delete()
				k.Nudge(clusterID, "here")
			}
		}
		if want := []berth.ClusterState{berth.ClusterStarting, berth.ClusterRunning, berth.ClusterStopping, berth.ClusterStopped}; !slices.Equal(states, want) {
			t.Errorf("%v, want %v", states, want)
		}
		k.Close()
	})
}

func TestAHeadIsConnectedToWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(fixed(0))
		w.waiting = true
		dialled := func(k *Keeper) error {
			c := w.cluster()
			_, err := k.Dial(t.Context(), &c, berth.ClusterScheduler)
			return err
		}
		c := w.cluster()
		k := w.keeper()
		if _, err := k.Dial(t.Context(), &c, berth.ClusterScheduler); berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "has no head yet") {
			t.Errorf("before there is a head: %v", err)
		}
		k.Settle(t.Context(), clusterID, "here")
		w.until(t, k, "with a head", func(c *berth.Cluster) bool { return c.Head.Task != nil })
		if err := dialled(k); berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "is queued") {
			t.Errorf("while the head waits: %v", err)
		}
		w.mu.Lock()
		pod := "head-pod"
		w.tasks[0].State, w.tasks[0].Pod = berth.StateRunning, &pod
		w.changed()
		w.mu.Unlock()
		w.until(t, k, "running", ready(0))
		if err := dialled(k); err == nil || err.Error() != "it is no network" {
			t.Errorf("while it runs: %v", err)
		}
		if access, err := k.Access(t.Context(), &c); err != nil || !strings.Contains(access.CA, "BEGIN CERTIFICATE") || !strings.Contains(access.Key.Reveal(), "PRIVATE KEY") {
			t.Errorf("its keys: %+v, %v", access, err)
		}
		w.delete()
		w.until(t, k, "over", terminal).Close()
		if err := dialled(k); berth.CodeOf(err) != berth.CodeConflict {
			t.Errorf("in the end: %v", err)
		}
	})
}
