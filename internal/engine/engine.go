package engine

import (
	"context"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// Health is how an infrastructure stands to us.
type Health struct {
	State     berth.InfrastructureState
	Reason    string // of any state but ready
	Diagnosis *berth.Diagnosis
	Since     time.Time
	SeenAt    time.Time // when it last answered
}

// passes reports whether what was ready before is likely to be ready again by
// itself: it is out of reach, or forbids everything for a moment, as an API
// server does that starts.
func (h *Health) passes(now time.Time) bool {
	return h.State == berth.InfraUnreachable || h.State == berth.InfraForbidden && now.Sub(h.Since) < forbiddenFor
}

// Texts words the diagnoses that the engine makes itself.
type Texts interface {
	Lost(infrastructure string, task *berth.Task) *berth.Diagnosis
	StartTimedOut(infrastructure string, task *berth.Task, limit time.Duration) *berth.Diagnosis
}

// Engine runs the loops of all infrastructures. Methods are safe for
// concurrent use.
type Engine struct {
	store  Store
	logs   LogStore
	texts  Texts
	agents Agents
	log    *slog.Logger
	now    func() time.Time
	hub    *hub
	leases Leases // nil: everything is this engine's
	ids    ids

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // loops, followers of logs
	pending sync.WaitGroup // creates and deletes under way

	mu         sync.Mutex
	loops      map[string]*loop
	submitting map[string]chan struct{} // by idempotency key
}

// New returns an engine without infrastructures; see Configure.
func New(store Store, logs LogStore, texts Texts, agents Agents, log *slog.Logger) *Engine {
	e := &Engine{store: store, logs: logs, texts: texts, agents: agents, log: log, now: crash.Now, hub: newHub(), loops: map[string]*loop{}, submitting: map[string]chan struct{}{}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// drainGrace bounds how long Drain waits for what is nearly done.
const drainGrace = 2 * time.Second

// Drain gives what is nearly done a short while: creates and deletes that are
// under way now, and the logs and pods of attempts that have ended by now. So
// short commands, one after the other, clean up too.
func (e *Engine) Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainGrace)
	defer cancel()
	left := e.unfinished(ctx)
	for len(left) > 0 && sleep(ctx, 5*time.Millisecond) {
		now := e.unfinished(ctx)
		for pod := range left {
			if !now[pod] {
				delete(left, pod)
			}
		}
	}
}

// Close stops all loops. Tasks and pods stay as they are.
func (e *Engine) Close() {
	e.cancel()
	e.wg.Wait()
	e.pending.Wait()
}

// unfinished names the pods for which something is nearly done.
func (e *Engine) unfinished(ctx context.Context) map[string]bool {
	all := map[string]bool{}
	for _, name := range e.Infrastructures() {
		answer := make(chan []string, 1)
		e.loop(name).inbox.post(func(s *step) { answer <- s.unfinished() })
		select {
		case pods := <-answer:
			for _, pod := range pods {
				all[pod] = true
			}
		case <-ctx.Done():
			return nil
		}
	}
	return all
}

// Start begins to reconcile an infrastructure: its live tasks are taken up
// from the store. Starting it again with another driver or configuration goes
// over to that one.
func (e *Engine) Start(ctx context.Context, config berth.InfrastructureConfig, driver Driver) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	l, ok := e.loops[config.Name]
	if !ok {
		lives, err := e.store.Live(ctx, config.Name)
		if err != nil {
			return err
		}
		shares, err := e.store.Shares(ctx, config.Name)
		if err != nil {
			return err
		}
		cancelled, err := e.store.CancelledArrays(ctx, config.Name)
		if err != nil {
			return err
		}
		var running []string
		for _, life := range lives {
			if life.Task.State == berth.StateRunning {
				running = append(running, life.Task.ID)
			}
		}
		metered, err := e.store.Meters(ctx, running)
		if err != nil {
			return err
		}
		l = newLoop(e, config.Name)
		l.meters.resume(metered)
		e.loops[config.Name] = l
		for _, life := range lives {
			e.hub.publish(life)
		}
		l.counts.Store(&counts{live: len(lives)})
		l.inbox.post(func(s *step) {
			s.adoptQueue(shares)
			for _, life := range lives {
				s.adopt(life)
			}
		})
		ran, measured := l.works(&e.wg), l.works(&e.wg)
		go func() { defer ran(); l.run(l.ctx) }()
		go func() { defer measured(); l.meters.run(l.ctx) }()
		for _, id := range cancelled {
			e.cancelTasks(l, id)
		}
	}
	l.inbox.post(func(s *step) { s.reach(l.ctx, config, driver) })
	return nil
}

// Remove goes on without an infrastructure's driver: its tasks stay as they are.
func (e *Engine) Remove(name string) {
	e.mu.Lock()
	l := e.loops[name]
	e.mu.Unlock()
	if l == nil {
		return
	}
	l.inbox.post(func(s *step) {
		if s.stopDriver != nil {
			s.stopDriver()
		}
		s.driver = nil
		s.setHealth(Health{State: berth.InfraRemoved, Reason: "it is no longer in infra.yml", Since: s.now})
	})
}

func (e *Engine) loop(name string) *loop {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loops[name]
}

// Health returns how an infrastructure that was started stands, and how many
// tasks of it live and are queued.
func (e *Engine) Health(name string) (h Health, live, queued int) {
	l := e.loop(name)
	if l == nil {
		return Health{State: berth.InfraUnknown}, 0, 0
	}
	c := l.counts.Load()
	return *l.health.Load(), c.live, c.queued
}

// Settle waits until an infrastructure answered or is known not to, so that
// what is read next is how things stand now.
func (e *Engine) Settle(ctx context.Context, name string) {
	l := e.loop(name)
	if l == nil {
		return
	}
	select {
	case <-l.connected:
	case <-ctx.Done():
		return
	}
	for {
		done := make(chan bool, 1)
		l.inbox.post(func(s *step) {
			s.replies = append(s.replies, reply{send: func(error) { done <- s.listed || s.health.Load().State != berth.InfraReady }})
		})
		select {
		case ok := <-done:
			if ok || !sleep(ctx, 5*time.Millisecond) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Cancel stores that a task is to be cancelled.
func (e *Engine) Cancel(ctx context.Context, id string) (berth.Task, error) {
	task, err := e.Task(ctx, id)
	if err != nil || task.State.Terminal() {
		return task, err
	}
	l := e.loop(task.Infrastructure)
	if l == nil {
		return task, berth.Errorf(berth.CodeNotFound, "infrastructure %q of task %s is no longer in infra.yml: add it again to cancel its tasks", task.Infrastructure, id)
	}
	if err := e.ask(ctx, l, id, func(s *step, r reply) { s.onCancel(ctx, id, r) }); err != nil {
		return task, err
	}
	return e.Task(ctx, id)
}

// Task returns a task as it stands.
func (e *Engine) Task(ctx context.Context, id string) (berth.Task, error) {
	life, err := e.life(ctx, id)
	if err != nil {
		return berth.Task{}, err
	}
	return e.Present(life.Task), nil
}

func (e *Engine) life(ctx context.Context, id string) (*berth.Life, error) {
	if life := e.hub.life(id); life != nil {
		return life, nil
	}
	return e.store.Life(ctx, id)
}

// Present adds to a stored task what is known of it now: what it has used so
// far, and of its infrastructure: a task that waits for a cluster out of reach
// says so.
func (e *Engine) Present(task berth.Task) berth.Task {
	if task.State.Terminal() {
		return task
	}
	l := e.loop(task.Infrastructure)
	if l == nil {
		return task
	}
	if task.State == berth.StateRunning && task.Pod != nil {
		task.Usage = l.meters.total(*task.Pod, time.Time{}).Usage
	}
	h := l.health.Load()
	if h.State == berth.InfraReady || h.State == berth.InfraUnknown {
		if task.Diagnosis == nil && task.State == berth.StateQueued {
			// A quota that refused others which ask for the same holds this one too.
			task.Diagnosis = l.counts.Load().held[requestOf(&task.Spec)]
		}
		if task.Diagnosis == nil && task.Reason == nil {
			waits := l.waits(&task, h, e.now())
			if waits == "" && task.State == berth.StateQueued {
				waits = l.waiting(&task)
			}
			if waits != "" {
				task.Reason = &waits
			}
		}
		return task
	}
	task.Stale = &h.Reason
	if h.Diagnosis != nil && (task.Diagnosis == nil || task.State == berth.StateQueued) {
		d := *h.Diagnosis
		d.Since = h.Since
		task.Diagnosis = &d
	}
	return task
}

// Watch yields a task as it is and whenever it changed, until it has ended.
func (e *Engine) Watch(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return func(yield func(berth.Task, error) bool) {
		changed, stop := e.hub.watch(id)
		defer stop()
		// What a task waits for is told after a while, though nothing changes.
		quiet := time.NewTimer(quietAfter)
		defer quiet.Stop()
		var last berth.Task
		for {
			task, err := e.Task(ctx, id)
			if err != nil || !reflect.DeepEqual(task, last) {
				if !yield(task, err) || err != nil || task.State.Terminal() {
					return
				}
				last = task
			}
			select {
			case <-changed:
				quiet.Reset(quietAfter)
			case <-quiet.C:
				if task.Waiting() {
					quiet.Reset(quietAfter) // what it waits for may be another's doing
				}
			case <-ctx.Done():
				yield(berth.Task{}, ctx.Err())
				return
			case <-e.ctx.Done():
				yield(berth.Task{}, berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding))
				return
			}
		}
	}
}

// Ending is closed when the engine stops: readers that wait go away.
func (e *Engine) Ending() <-chan struct{} { return e.ctx.Done() }

// Infrastructures names the loops that run.
func (e *Engine) Infrastructures() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for name := range e.loops {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
