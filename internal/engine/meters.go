package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

const (
	// unmeteredPause is how long an infrastructure that can't tell what its
	// pods use is left alone.
	unmeteredPause = 5 * time.Minute

	// agentSilence is after what time the cluster's figures count again for an
	// attempt whose agent told its own.
	agentSilence = time.Minute

	// clockSkew is how far a node's clock is believed to be off.
	clockSkew = time.Hour
)

// meters measure what the running attempts of one infrastructure use: all of
// them by one call an interval, and by what their agents tell. They write to
// the store once an interval, in one transaction. One goroutine runs them; it
// sleeps while nothing runs.
type meters struct {
	loop *loop
	wake chan struct{}

	mu        sync.Mutex
	running   map[string]*attemptMeter // by pod
	earlier   map[key]berth.Meter      // of attempts that an earlier process left running
	ended     []*attemptMeter          // with something that is not stored yet
	unmetered string                   // why the infrastructure doesn't tell; empty while it does
	notBefore time.Time                // of the next question
	failures  int                      // in a row that may pass

	storing sync.Mutex // one writer at a time: what is newer is written later
}

// key names an attempt.
type key struct {
	task    string
	attempt int
}

// attemptMeter is the meter of one attempt.
type attemptMeter struct {
	task    string
	attempt int
	meter   berth.Meter
	pending []berth.Sample
	changed bool
	thinned bool
	toldAt  time.Time // when its agent last told
}

func newMeters(l *loop) *meters {
	return &meters{loop: l, wake: make(chan struct{}, 1), running: map[string]*attemptMeter{}, earlier: map[key]berth.Meter{}}
}

// resume goes on with what an earlier process measured.
func (m *meters) resume(stored []berth.Metered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range stored {
		m.earlier[key{stored[i].TaskID, stored[i].Attempt}] = stored[i].Meter
	}
}

// see begins and ends to measure the attempts of a committed life.
func (m *meters) see(life *berth.Life) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range life.Attempts {
		a := &life.Attempts[i]
		one := m.running[a.Pod]
		switch {
		case a.Outcome == nil && !a.StartedAt.IsZero() && one == nil:
			one = &attemptMeter{task: life.Task.ID, attempt: a.Number, meter: berth.NewMeter(a.StartedAt)}
			if meter, ok := m.earlier[key{one.task, one.attempt}]; ok {
				one.meter = meter
				delete(m.earlier, key{one.task, one.attempt})
			}
			m.running[a.Pod] = one
			m.poke()
		case a.Outcome != nil && one != nil:
			delete(m.running, a.Pod)
			if one.changed {
				m.ended = append(m.ended, one)
			}
			m.poke()
		}
	}
}

func (m *meters) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run measures until the context ends, while something runs.
func (m *meters) run(ctx context.Context) {
	for {
		m.mu.Lock()
		idle := len(m.running) == 0
		m.mu.Unlock()
		if idle {
			m.save(ctx)
			select {
			case <-ctx.Done():
				return
			case <-m.wake:
				continue
			}
		}
		if !sleep(ctx, berth.SampleInterval) {
			// The engine ends: what was told meanwhile is kept.
			m.save(context.WithoutCancel(ctx))
			return
		}
		m.poll(ctx)
		m.save(ctx)
	}
}

// poll asks the infrastructure once for all that runs.
func (m *meters) poll(ctx context.Context) {
	now := m.loop.engine.now()
	in := m.loop.current.Load()
	m.mu.Lock()
	wanted := false
	for _, one := range m.running {
		wanted = wanted || now.Sub(one.toldAt) > agentSilence
	}
	wanted = wanted && in != nil && !now.Before(m.notBefore) && m.loop.health.Load().State == berth.InfraReady
	m.mu.Unlock()
	if !wanted {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, berth.SampleInterval)
	defer cancel()
	readings, err := in.driver.Usage(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.refused(err, now)
		return
	}
	m.unmetered, m.failures = "", 0
	for pod, reading := range readings {
		if one := m.running[pod]; one != nil && now.Sub(one.toldAt) > agentSilence {
			one.add(reading)
		}
	}
}

// refused says when to ask again. m.mu is held.
func (m *meters) refused(err error, now time.Time) {
	var un *Unmetered
	if errors.As(err, &un) {
		m.unmetered, m.notBefore, m.failures = un.Reason, now.Add(unmeteredPause), 0
		return
	}
	pause := min(berth.SampleInterval<<min(m.failures, 10), unmeteredPause)
	m.failures++
	m.unmetered, m.notBefore = "the infrastructure did not tell what its pods use: "+err.Error(), now.Add(pause)
	m.loop.engine.log.Debug("cannot ask what pods use", "infrastructure", m.loop.name, "error", err)
}

// reset lets another driver be asked at once.
func (m *meters) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unmetered, m.notBefore, m.failures = "", time.Time{}, 0
}

// told takes in what an attempt's agent read.
func (m *meters) told(pod string, events []agent.Event) {
	now := m.loop.engine.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.running[pod]
	if one == nil {
		return
	}
	for i := range events {
		u := events[i].Usage
		if u == nil || u.CPUSeconds == nil || u.MemoryBytes == nil {
			continue
		}
		one.toldAt = now
		at := events[i].At // by its node's clock, as the start is
		if at.Sub(now).Abs() > clockSkew {
			at = now
		}
		one.add(berth.Reading{Source: berth.UsageFromAgent, At: at, CPUSeconds: u.CPUSeconds, MemoryBytes: *u.MemoryBytes, ThrottledSeconds: u.ThrottledSeconds})
	}
}

func (a *attemptMeter) add(r berth.Reading) {
	stride, readings := a.meter.Stride, a.meter.Readings
	sample, keep := a.meter.Add(r)
	if keep && len(a.pending) < berth.MaxSamples {
		a.pending = append(a.pending, sample)
	}
	a.changed = a.changed || a.meter.Readings > readings
	a.thinned = a.thinned || a.meter.Stride != stride
}

// total is what an attempt used by a time, and why that isn't known.
func (m *meters) total(pod string, by time.Time) berth.AttemptUsage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one := m.running[pod]; one != nil && one.meter.Readings > 0 {
		return one.meter.Total(by)
	}
	return berth.AttemptUsage{Unmeasured: m.unmetered}
}

// why says why the infrastructure doesn't tell what its pods use.
func (m *meters) why() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unmetered
}

// save stores what is new. What can't be stored is tried again.
func (m *meters) save(ctx context.Context) {
	m.storing.Lock()
	defer m.storing.Unlock()
	m.mu.Lock()
	var taken []*attemptMeter
	var batch []berth.Metered
	take := func(one *attemptMeter) {
		if !one.changed {
			return
		}
		metered := berth.Metered{TaskID: one.task, Attempt: one.attempt, Meter: one.meter, Thinned: one.thinned}
		for _, sample := range one.pending {
			if one.meter.Kept(sample) {
				metered.Samples = append(metered.Samples, sample)
			}
		}
		taken, batch = append(taken, one), append(batch, metered)
	}
	for _, one := range m.running {
		take(one)
	}
	for _, one := range m.ended {
		take(one)
	}
	counts := make([]int, len(taken))
	for i, one := range taken {
		counts[i] = len(one.pending)
		one.changed, one.thinned = false, false
	}
	m.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := error(errNotHeld)
	if m.loop.mayAct() {
		err = m.loop.engine.store.SaveMeters(ctx, batch)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.loop.engine.log.Warn("cannot store what tasks use; trying again", "infrastructure", m.loop.name, "error", err)
		for i, one := range taken {
			one.changed, one.thinned = true, one.thinned || batch[i].Thinned
		}
		return
	}
	for i, one := range taken {
		one.pending = append([]berth.Sample(nil), one.pending[counts[i]:]...)
	}
	kept := m.ended[:0]
	for _, one := range m.ended {
		if one.changed {
			kept = append(kept, one)
		}
	}
	m.ended = kept
}

// Metrics returns what an attempt of a task used; 0 is the last.
func (e *Engine) Metrics(ctx context.Context, id string, attempt int) (berth.TaskMetrics, error) {
	life, err := e.life(ctx, id)
	if err != nil {
		return berth.TaskMetrics{}, err
	}
	if attempt == 0 {
		attempt = len(life.Attempts)
	}
	if attempt != 0 && life.ByNumber(attempt) == nil {
		return berth.TaskMetrics{}, berth.Errorf(berth.CodeNotFound, "task %s has no attempt %d; it has %d", id, attempt, len(life.Attempts))
	}
	var why string
	if l := e.loop(life.Task.Infrastructure); l != nil {
		l.meters.save(ctx)
		if a := life.ByNumber(attempt); a != nil && a.Outcome == nil {
			why = l.meters.why()
		}
	}
	metered, err := e.store.Metered(ctx, id, attempt)
	if err != nil {
		return berth.TaskMetrics{}, err
	}
	if metered == nil {
		return berth.NewTaskMetrics(life, attempt, nil, nil, why, e.now()), nil
	}
	return berth.NewTaskMetrics(life, attempt, &metered.Meter, metered.Samples, why, e.now()), nil
}
