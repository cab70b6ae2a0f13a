package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth"
)

// TestPromisesHoldInAnyStorm draws interleavings of what people ask for, of what
// pods do and others do to them, of answers that don't come, and of crashes of
// the engine at any of them. A crash is a new engine on the same store. What the
// cluster saw is the ledger: it decides whether promises held.
func TestPromisesHoldInAnyStorm(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		// Time passes only while nothing else happens, so that pauses cost none.
		var failed any // rapid has a failure come to it as a panic
		synctest.Test(t, func(t *testing.T) {
			defer func() { failed = recover() }()
			rage(t, r)
		})
		if failed != nil {
			panic(failed)
		}
	})
}

func rage(t *testing.T, r *rapid.T) {
	s := newStorm(t, r)
	defer s.end()
	r.Repeat(map[string]func(*rapid.T){
		"submit": s.submit,
		"cancel": s.cancel,
		"start":  func(*rapid.T) { s.each("start", unstarted, s.starts) },
		"finish": func(*rapid.T) {
			s.each("finish", hasStarted, func(pod string) { s.finishes(pod, s.draw("code", 0, 1)) })
		},
		"evict":   func(*rapid.T) { s.each("evict", unstarted, s.evicts) },
		"delete":  func(*rapid.T) { s.each("delete", func(berth.Observation) bool { return true }, s.deletes) },
		"trouble": s.trouble,
		"cut":     func(*rapid.T) { s.cut() },
		"restore": func(*rapid.T) { s.restore() },
		"crash": func(*rapid.T) {
			s.away = time.Duration(s.draw("away", 0, 5)) * time.Minute
			s.crash()
		},
		"wait": func(*rapid.T) { time.Sleep(time.Duration(s.draw("seconds", 1, 90)) * time.Second) },
		"":     func(*rapid.T) { s.settle() },
	})
	s.calm()
	s.judge()
}

func unstarted(o berth.Observation) bool  { return o.StartedAt.IsZero() }
func hasStarted(o berth.Observation) bool { return !o.StartedAt.IsZero() }

// storm is a cluster that is in trouble, and the process that works with it.
type storm struct {
	t       *testing.T
	r       *rapid.T
	cluster *cluster
	dir     string
	process *process

	answers   []error         // of the creates, finds and questions that come next; nil is none of these
	away      time.Duration   // how long nobody starts the next process
	die       string          // where the process dies next: "before create", "after create", "after commit"
	existed   map[string]bool // pods, by name: what events of the cluster tell
	runs      map[string]int  // by task: pods that started
	good      map[string]bool // tasks, a pod of which ended with 0
	bad       map[string]bool // ... and with another code
	taken     map[string]bool // tasks, a pod of which was deleted by another hand
	submitted []berth.Task
	cancelled map[string]bool
}

func newStorm(t *testing.T, r *rapid.T) *storm {
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "storm")
	if err != nil {
		r.Fatal(err)
	}
	s := &storm{
		t: t, r: r, cluster: newCluster(), dir: dir, existed: map[string]bool{}, runs: map[string]int{}, good: map[string]bool{},
		bad: map[string]bool{}, taken: map[string]bool{}, cancelled: map[string]bool{},
	}
	c := s.cluster
	c.onCreate = func(Order) error {
		if err := s.answer(); err != nil {
			return err
		}
		if s.dies("before create") {
			return &Refusal{Kind: RefusedPermanent, Err: errors.New("killed")}
		}
		return nil
	}
	c.afterCreate = func(order Order) error {
		s.existed[order.Pod] = true
		s.dies("after create")
		if len(s.answers) > 0 && errors.Is(s.answers[0], unanswered) {
			return s.answer()
		}
		return nil
	}
	c.onFind = func(Order) error { return s.answer() }
	c.onVouch = func() error { return s.answer() }
	c.existed = func(pod string) bool { return s.existed[pod] }
	s.begin()
	return s
}

// answer is what is answered next; c.mu is held.
func (s *storm) answer() error {
	if s.cluster.deaf {
		return unreachable
	}
	if len(s.answers) == 0 || errors.Is(s.answers[0], unanswered) {
		return nil
	}
	err := s.answers[0]
	s.answers = s.answers[1:]
	if err == nil {
		return nil
	}
	return err
}

// dies ends the process if that is wanted here: nothing that it does later counts.
func (s *storm) dies(where string) bool {
	if s.die != where {
		return false
	}
	s.die = ""
	s.process.engine.cancel()
	return true
}

// dyingStore is a store whose process dies when something was stored.
type dyingStore struct {
	Store
	storm *storm
}

func (d dyingStore) Commit(ctx context.Context, changes []berth.Change) error {
	err := d.Store.Commit(ctx, changes)
	d.storm.cluster.mu.Lock()
	defer d.storm.cluster.mu.Unlock()
	if d.storm.dies("after commit") {
		return context.Canceled
	}
	return err
}

func (s *storm) begin() {
	s.process = startAt(s.t, s.dir, s.cluster, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 4}}, time.Now, func(e *Engine) { e.store = dyingStore{e.store, s} })
	s.settle()
}

// settle lets all that can happen without time happen, and starts another
// process where the last one died meanwhile.
func (s *storm) settle() {
	synctest.Wait()
	if s.process.engine.ctx.Err() != nil {
		s.crash()
	}
}

// crash ends the process and starts another, after what happens meanwhile.
func (s *storm) crash() {
	s.process.crash()
	s.cluster.mu.Lock()
	s.cluster.sink, s.die = nil, ""
	s.cluster.mu.Unlock()
	synctest.Wait()
	for range s.draw("meanwhile", 0, 3) {
		switch s.draw("what", 0, 2) {
		case 0:
			s.each("start", unstarted, s.starts)
		case 1:
			s.each("finish", hasStarted, func(pod string) { s.finishes(pod, s.draw("code", 0, 1)) })
		default:
			s.each("delete", func(berth.Observation) bool { return true }, s.deletes)
		}
	}
	time.Sleep(s.away)
	s.begin()
}

func (s *storm) end() {
	s.process.crash()
	os.RemoveAll(s.dir)
}

func (s *storm) draw(what string, from, to int) int {
	return rapid.IntRange(from, to).Draw(s.r, what)
}

func (s *storm) submit(*rapid.T) {
	spec := berth.TaskSpec{Image: "busybox", Infrastructure: "here", Retries: s.draw("retries", 0, 1), Idempotent: s.draw("idempotent", 0, 3) == 0}
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	// Whether or not it is told, what is in the store is asked for at the end.
	task, err := s.process.engine.Submit(ctx, "ann", "ann", berth.Submission{Spec: spec})
	if err == nil {
		s.submitted = append(s.submitted, task)
	}
}

func (s *storm) cancel(*rapid.T) {
	if len(s.submitted) == 0 || s.draw("really", 0, 3) > 0 {
		return
	}
	task := s.submitted[s.draw("which", 0, len(s.submitted)-1)]
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	s.cancelled[task.ID] = true
	_, _ = s.process.engine.Cancel(ctx, task.ID)
}

// each does something to one of the pods that it can be done to.
func (s *storm) each(what string, to func(berth.Observation) bool, do func(pod string)) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	var pods []string
	for _, name := range slices.Sorted(maps.Keys(s.cluster.pods)) {
		if o := s.cluster.pods[name]; o.Outcome == nil && to(o) {
			pods = append(pods, name)
		}
	}
	if len(pods) > 0 {
		do(pods[s.draw(what, 0, len(pods)-1)])
	}
}

// tell has whoever watches see a pod; c.mu is held.
func (s *storm) tell(o berth.Observation) {
	if o.Gone {
		delete(s.cluster.pods, o.Pod)
	} else {
		s.cluster.pods[o.Pod] = o
	}
	if s.cluster.sink != nil && !s.cluster.deaf {
		s.cluster.sink.Observed(o)
	}
}

func (s *storm) starts(pod string) {
	o := s.cluster.pods[pod]
	o.StartedAt = time.Now()
	s.runs[o.TaskID]++
	s.tell(o)
}

func (s *storm) finishes(pod string, code int) {
	o := s.cluster.pods[pod]
	o.EndedAt, o.Outcome = time.Now(), &berth.Outcome{ExitCode: &code}
	if code == 0 {
		s.good[o.TaskID] = true
	} else {
		s.bad[o.TaskID] = true
		o.Outcome.Diagnosis = &berth.Diagnosis{Cause: berth.CauseExitedNonZero, Summary: "it failed"}
	}
	s.tell(o)
}

// evicts ends a pod that never started.
func (s *storm) evicts(pod string) {
	o := s.cluster.pods[pod]
	o.Outcome = &berth.Outcome{ByCluster: true, NeverStarted: true, Diagnosis: &berth.Diagnosis{Cause: berth.CauseEvicted, Summary: "evicted"}}
	s.bad[o.TaskID] = true
	s.tell(o)
}

// deletes takes a pod away by another hand.
func (s *storm) deletes(pod string) {
	o := s.cluster.pods[pod]
	o.Gone = true
	s.taken[o.TaskID] = true
	s.tell(o)
}

// trouble has the next call go wrong, or the process die at it.
func (s *storm) trouble(*rapid.T) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	switch what := rapid.SampledFrom([]string{"none", "unreachable", "transient", "forbidden", "unanswered", "before create", "after create", "after commit"}).Draw(s.r, "trouble"); what {
	case "none":
		s.answers = append(s.answers, nil)
	case "unreachable":
		s.answers = append(s.answers, unreachable)
	case "transient":
		s.answers = append(s.answers, &Refusal{Kind: RefusedTransient, Err: errors.New("429"), Diagnosis: &berth.Diagnosis{Cause: berth.CauseClusterUnreachable}})
	case "forbidden":
		if !slices.Contains(s.answers, error(forbidden)) { // for long it is a reason to fail
			s.answers = append(s.answers, forbidden)
		}
	case "unanswered":
		s.answers = append(s.answers, unanswered)
	default:
		s.die = what
	}
}

func (s *storm) cut() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.cluster.deaf = true
	if s.cluster.sink != nil {
		s.cluster.sink.Lost(unreachable)
	}
}

func (s *storm) restore() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.cluster.deaf = false
	if s.cluster.sink != nil {
		s.cluster.list()
	}
}

// calm ends all trouble, and gives everything the time that it needs.
func (s *storm) calm() {
	s.cluster.mu.Lock()
	s.answers, s.die = nil, ""
	s.cluster.mu.Unlock()
	s.restore()
	for range 60 {
		s.settle()
		s.cluster.mu.Lock()
		for _, pod := range slices.Sorted(maps.Keys(s.cluster.pods)) {
			if o := s.cluster.pods[pod]; o.Outcome == nil {
				if o.StartedAt.IsZero() {
					s.starts(pod)
				}
				s.finishes(pod, 0)
			}
		}
		s.cluster.mu.Unlock()
		synctest.Wait()
		if lives, err := s.process.store.Live(s.t.Context(), "here"); err == nil && len(lives) == 0 && s.waiting() == 0 {
			return
		}
		time.Sleep(30 * time.Second)
	}
}

func (s *storm) waiting() int {
	page, err := s.process.store.Tasks(s.t.Context(), berth.TaskQuery{States: []berth.TaskState{berth.StateQueued}, Limit: 1000}, berth.Caller{Role: berth.RoleAdmin})
	if err != nil {
		s.r.Fatal(err)
	}
	return len(page.Tasks)
}

func (s *storm) judge() {
	ctx := s.t.Context()
	page, err := s.process.store.Tasks(ctx, berth.TaskQuery{Limit: 1000}, berth.Caller{Role: berth.RoleAdmin})
	if err != nil {
		s.r.Fatal(err)
	}
	known := map[string]berth.Task{}
	for _, task := range page.Tasks {
		known[task.ID] = task
		events, err := s.process.store.Events(ctx, task.ID, 0, 1000)
		if err != nil {
			s.r.Fatal(err)
		}
		var told []string
		ends := 0
		for _, e := range events {
			told = append(told, fmt.Sprintf("%s %d %s", e.Type, e.Attempt, e.Message))
			switch e.Type {
			case berth.EventFinished, berth.EventFailed, berth.EventStopped, berth.EventLost:
				ends++
			}
		}
		id := task.ID
		wrong := func(what string) {
			s.r.Errorf("%s: task %s is %s, %+v; runs %d, good %t, bad %t, deleted %t, cancelled %t\n%q", what, id, task.State, task.Diagnosis, s.runs[id], s.good[id], s.bad[id], s.taken[id], s.cancelled[id], told)
		}
		if ends != 1 {
			wrong(fmt.Sprintf("it ended %d times", ends))
		}
		if s.runs[id] > 1 && task.Spec.Retries == 0 && !task.Spec.Idempotent {
			wrong("it ran more often than once")
		}
		switch {
		case !task.State.Terminal():
			wrong("it has not ended")
		case task.State == berth.StateSucceeded && !s.good[id]:
			wrong("no pod ended well")
		case task.State == berth.StateFailed && !s.bad[id] && !s.taken[id] && task.Diagnosis.Cause != berth.CauseStartTimedOut:
			wrong("no pod ended badly")
		case task.State == berth.StateLost && !s.taken[id]:
			wrong("nobody deleted its pod")
		case task.State == berth.StateCancelled && !s.cancelled[id]:
			wrong("nobody cancelled it")
		}
	}
	for _, task := range s.submitted {
		if _, ok := known[task.ID]; !ok {
			s.r.Errorf("the store has no task %s", task.ID)
		}
	}
	if _, _, left := s.cluster.counts(); left > 0 {
		s.r.Errorf("%d pods are left", left)
	}
}
