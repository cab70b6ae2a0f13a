package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

const (
	batchLimit    = 1024             // inputs a commit at most
	createLimit   = paceMax          // creates in flight at once, those of an earlier process among them
	deleteLimit   = 32               // deletes in flight at once
	logLimit      = 8                // logs of ended attempts read at once
	logsDeadline  = 60 * time.Second // after an attempt's end; then its log is incomplete
	forceAfter    = 30 * time.Second // beyond its grace, a pod stuck in Terminating is forced
	podGrace      = 10 * time.Second // as docker stop: between SIGTERM and SIGKILL
	recreatePause = time.Second      // before a refused or doubtful create is tried again, doubling
	// An API server that has just started knows no roles yet, and refuses
	// everything to everybody: a right is believed to be missing when it still
	// is after so many more tries, and when it has been for so long.
	forbiddenAgain = 2
	forbiddenFor   = 10 * time.Second
)

// loop reconciles one infrastructure. Its fields belong to its goroutine,
// except those marked shared.
type loop struct {
	engine *Engine
	name   string
	inbox  *inbox // shared
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup // all that is under way for it

	config berth.InfrastructureConfig
	driver Driver // nil while the entry is missing from infra.yml

	lives     map[string]*berth.Life // committed, not settled
	unended   int                    // of all in the store, not ended
	queued    int                    // of all in the store, queued
	open      map[string]bool        // of these, with an attempt that is not known to have ended
	queue     *queue
	pace      *pace // shared
	maxPods   int
	creating  int                    // creates under way
	calls     map[string]*calls      // by pod: what is under way or was tried
	timers    map[string]*time.Timer // by task: when its patience ends
	present   map[string]string      // by pod: UID of what the last listing showed
	deleted   map[string]bool        // UIDs of pods that are gone by the answer to their delete, and not yet by the watch
	listed    bool
	quota     quotaWatch
	meters    *meters       // shared
	connected chan struct{} // shared; closed at the first answer or failure of this driver

	health       atomic.Pointer[Health]      // shared
	storeTrouble atomic.Pointer[error]       // shared
	counts       atomic.Pointer[counts]      // shared
	current      atomic.Pointer[driverInUse] // shared
	createSlots  chan struct{}
	deleteSlots  chan struct{}
	logSlots     chan struct{}
	turnSlots    chan struct{}
	streams      int // logs that are followed
	streamsMost  int // for a log that nobody reads
	stopDriver   context.CancelFunc
	outageSince  time.Time
	lastStep     time.Time
}

type driverInUse struct {
	driver Driver
	config berth.InfrastructureConfig
}

// counts are what readers want to know of a loop.
type counts struct {
	live, queued int
	held         map[request]*berth.Diagnosis // of tasks that a quota holds; nil while it holds none
}

// calls is what a loop knows of its calls for one pod.
type calls struct {
	fresh     bool // this process intended the pod, so no earlier one created it
	creating  bool
	unwanted  chan struct{} // of the create that is under way: closed when the task was cancelled meanwhile
	doubtful  bool          // a create of this process may have been done, and could not be looked for
	seen      time.Time     // when this process made or found it, by no clock that can be set
	failures  int           // of creates, for the pause until the next
	forbidden int           // of these, the last in a row that a right was missing for
	quota     int           // changes of the quota that were told when the create was sent
	waiting   bool
	deleting  bool
	deleted   bool // accepted; the pod has still to end
	kept      bool // it has ended, and stays for a while
	stopped   bool // it ends, and is deleted once more when all of it is stored
	follower  *follower
	turns     turns           // of its log
	asked     []chan struct{} // closed when its log was read once more
	wanted    bool            // its log is followed: somebody reads it, it brings much, or its pod is about to go
}

func newLoop(e *Engine, name string) *loop {
	l := &loop{
		engine: e, name: name, inbox: newInbox(), lives: map[string]*berth.Life{}, open: map[string]bool{},
		queue: newQueue(name, e.store), pace: newPace(), maxPods: berth.DefaultLimits.MaxPods, calls: map[string]*calls{}, timers: map[string]*time.Timer{}, present: map[string]string{}, deleted: map[string]bool{},
		connected:   make(chan struct{}),
		createSlots: make(chan struct{}, createLimit), deleteSlots: make(chan struct{}, deleteLimit), logSlots: make(chan struct{}, logLimit), turnSlots: make(chan struct{}, turnLimit), streamsMost: streamsMost,
	}
	l.ctx, l.cancel = context.WithCancel(context.WithValue(e.ctx, ofKey{}, name))
	l.meters = newMeters(l)
	l.health.Store(&Health{State: berth.InfraUnknown})
	l.counts.Store(&counts{})
	return l
}

// run is the loop's goroutine: take what happened, decide, commit, act.
func (l *loop) run(ctx context.Context) {
	defer l.stop()
	var stored time.Time // the last commit
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.inbox.signal:
		}
		if wait := gather(len(l.open)) - time.Since(stored); wait > 0 && !sleep(ctx, wait) {
			return
		}
		inputs := l.inbox.take(batchLimit)
		s := &step{loop: l, now: l.engine.now(), changes: map[string]*berth.Change{}}
		s.followClock()
		for _, in := range inputs {
			in(s)
		}
		s.admit(ctx)
		if !s.commit(ctx) {
			return
		}
		if len(s.touched) > 0 {
			stored = time.Now()
		}
		for _, id := range s.touched {
			l.committed(s.changes[id].Life)
		}
		l.counts.Store(l.count())
		for _, r := range s.replies {
			r.send(nil)
		}
		for _, id := range append(s.touched, s.revisit...) {
			if life := l.lives[id]; life != nil {
				l.act(ctx, life)
			}
		}
	}
}

// gather is how far commits are apart at least, for more to be stored with
// each: nothing where few tasks run, and up to 50 ms where many do, which makes
// a fraction of the transactions.
func gather(running int) time.Duration {
	return min(time.Duration(max(0, running-8))*500*time.Microsecond, 50*time.Millisecond)
}

func (l *loop) stop() {
	if l.stopDriver != nil {
		l.stopDriver()
	}
	for _, t := range l.timers {
		t.Stop()
	}
}

// count is what there is at the moment.
func (l *loop) count() *counts {
	c := &counts{live: l.unended, queued: l.queued}
	if len(l.queue.held) > 0 {
		c.held = map[request]*berth.Diagnosis{}
		for r, h := range l.queue.held {
			c.held[r] = h.diagnosis
		}
	}
	return c
}

// committed takes over a life that is stored now. One that merely waits is left
// to the store.
func (l *loop) committed(life *berth.Life) {
	id := life.Task.ID
	before := l.lives[id]
	if life.Task.Infrastructure != l.name {
		l.departed(before, life)
		return
	}
	l.recount(before, life)
	if life.Task.State != berth.StateQueued {
		l.queue.remove(id) // which may have read it while this was not stored
	}
	if life.Open() != nil {
		l.open[id] = true
	} else {
		delete(l.open, id)
	}
	l.meters.see(life)
	switch {
	case life.Settled():
		delete(l.lives, id)
		for i := range life.Attempts {
			delete(l.calls, life.Attempts[i].Pod)
		}
		l.stopTimer(id)
	case life.Parked():
		delete(l.lives, id)
		l.queue.add(life)
	default:
		l.lives[id] = life
	}
	l.engine.hub.publish(life)
	if life.Task.Array != nil && (before == nil || before.Task.State != life.Task.State) {
		l.engine.hub.touch(life.Task.Array.ID)
	}
	for i := range life.Attempts {
		a := &life.Attempts[i]
		if a.Logs != berth.LogsOpen && (before == nil || len(before.Attempts) <= i || before.Attempts[i].Logs == berth.LogsOpen) {
			l.engine.logs.Notify(id, a.Number) // readers learn that no more will come
		}
	}
}

// recount counts a life that was another before, or is new: then before is nil.
func (l *loop) recount(before, after *berth.Life) {
	if before != nil {
		if !before.Task.State.Terminal() {
			l.unended--
		}
		if before.Task.State == berth.StateQueued {
			l.queued--
		}
		if before.Open() != nil && after.Open() == nil {
			l.queue.share(before.Share).open--
		}
	}
	if before == nil && after.Task.Orphan && after.Open() != nil {
		l.queue.share(after.Share).open++ // nobody let it through
	}
	if !after.Task.State.Terminal() {
		l.unended++
	}
	if after.Task.State == berth.StateQueued {
		l.queued++
	}
}

// adopt takes up a task that an earlier process left.
func (l *loop) adopt(life *berth.Life) {
	id := life.Task.ID
	life = life.Clone() // readers have the one that was published
	life.NotAhead(l.engine.now())
	l.lives[id] = life
	l.recount(nil, life)
	l.engine.hub.publish(life)
	l.meters.see(life)
	if life.Open() != nil {
		l.open[id] = true
		if !life.Task.Orphan { // which recount did
			l.queue.share(life.Share).open++
		}
	}
	if life.Task.State == berth.StateQueued {
		l.enqueue(life)
	}
}

// adoptQueue takes up what merely waits: how many tasks of which shares.
func (l *loop) adoptQueue(shares map[string]int) {
	for name, n := range shares {
		l.queue.share(name).more = true
		l.unended += n
		l.queued += n
	}
}

// reach begins to use a driver, in place of the one before it.
func (l *loop) reach(ctx context.Context, config berth.InfrastructureConfig, driver Driver) {
	if l.stopDriver != nil {
		l.stopDriver()
	}
	l.config, l.driver, l.listed = config, driver, false
	l.meters.reset()
	if config.Limits.MaxPods > 0 {
		l.maxPods = config.Limits.MaxPods
	}
	l.pace.perSecond(config.Limits.MaxCreatesPerSecond)
	l.current.Store(&driverInUse{driver, config})
	ctx, l.stopDriver = context.WithCancel(ctx)
	go l.connect(ctx, driver)
}

// connect asks what the infrastructure is, until it answers, and then watches it.
func (l *loop) connect(ctx context.Context, driver Driver) {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		identity, err := driver.Identity(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil && l.identified(ctx, driver, identity) {
			break
		}
		if err != nil {
			l.Lost(asRefusal(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
	go driver.Watch(ctx, &sinkOf{l, driver})
	l.inbox.post(func(s *step) {
		if s.driver == driver {
			s.reached()
		}
	})
}

// identified compares what answers with what did before under this name.
// Another namespace is not ours to touch: its tasks stay as they are.
func (l *loop) identified(ctx context.Context, driver Driver, identity string) bool {
	address, stored, err := l.engine.store.Identity(ctx, l.name)
	if err == nil && identity != "" && (stored == "" || (address != driver.Server() && l.counts.Load().live == 0)) {
		err = l.engine.store.SetIdentity(ctx, l.name, driver.Server(), identity, l.engine.now())
		stored = identity
		crash.Point("engine.identity-stored")
	}
	if err != nil {
		l.engine.log.Error("cannot record what an infrastructure is", "infrastructure", l.name, "error", err)
		return false
	}
	if identity != "" && stored != identity {
		l.inbox.post(func(s *step) {
			s.setHealth(Health{State: berth.InfraReplaced, Reason: "another namespace of the same name answers than before (it was deleted and made again, or the entry points elsewhere); tasks of the old one stay as they are. To go on with the new one: berth infra remove --force " + l.name + ", and add it again", Since: s.now})
		})
		return false
	}
	l.inbox.post(func(s *step) {
		if s.driver == driver {
			s.setHealth(Health{State: berth.InfraReady, SeenAt: s.now})
		}
	})
	return true
}

// sinkOf passes on what a driver sees while it is the loop's driver.
type sinkOf struct {
	*loop
	from Driver
}

func (o *sinkOf) post(in input) {
	o.inbox.post(func(s *step) {
		if s.driver == o.from {
			in(s)
		}
	})
}

func (o *sinkOf) Listed(pods []berth.Observation, began time.Time) {
	o.post(func(s *step) { s.onListed(pods, began) })
}
func (o *sinkOf) Observed(pod berth.Observation) { o.post(func(s *step) { s.onObserved(pod) }) }
func (o *sinkOf) Lost(refusal *Refusal)          { o.post(func(s *step) { s.onLost(refusal) }) }

// Lost takes in that the infrastructure can't be seen.
func (l *loop) Lost(refusal *Refusal) { l.inbox.post(func(s *step) { s.onLost(refusal) }) }
