package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/berth-run/berth"
)

// What an answer, or none, does not say must not be concluded from it: each of
// these was a task that failed, was lost or ran twice where it need not have.

var (
	unreachable = &Refusal{Kind: RefusedUnreachable, Err: errors.New("connection refused"), Diagnosis: &berth.Diagnosis{Cause: berth.CauseClusterUnreachable}}
	forbidden   = &Refusal{Kind: RefusedForbidden, Hopeless: true, Err: errors.New("403"), Diagnosis: &berth.Diagnosis{Cause: berth.CauseForbidden, Summary: "forbidden"}}
	unanswered  = &Refusal{Kind: RefusedUnknown, Err: errors.New("the connection was cut before the answer")}
)

// inTurn gives one answer after the other, and nil from then on.
func inTurn(answers ...error) func() error {
	return func() error {
		if len(answers) == 0 {
			return nil
		}
		answer := answers[0]
		answers = answers[1:]
		return answer
	}
}

// An API server that was away refuses everything for a moment when it is back.
func TestARightThatIsMissingAfterAnOutageFailsNoTask(t *testing.T) {
	c := newCluster()
	c.autoEnd = true
	answer := inTurn(unreachable, unreachable, forbidden)
	c.onCreate = func(Order) error { return answer() }
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	if task := p.until(p.submit(nil).ID, ended); task.State != berth.StateSucceeded {
		t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
	}
}

// intended is a task whose process died before it sent the create.
func intended(t *testing.T, dir string, c *cluster) string {
	t.Helper()
	sent, block := make(chan struct{}), make(chan struct{})
	c.onCreate = func(Order) error {
		close(sent)
		c.mu.Unlock()
		<-block
		c.mu.Lock()
		return &Refusal{Kind: RefusedPermanent, Err: errors.New("killed")}
	}
	p := start(t, dir, c, berth.InfrastructureConfig{})
	go p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
	<-sent
	life, err := p.store.ByKey(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.onCreate, c.sink = nil, nil
	c.mu.Unlock()
	p.crash()
	close(block)
	return life.Task.ID
}

func TestAWitnessOutOfReachLosesNoTask(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	id := intended(t, dir, c)
	answer := inTurn(unreachable)
	c.onVouch = func() error { return answer() }
	c.autoEnd = true
	// Long enough after the intent for it to be lost where there is no witness.
	p := startAt(t, dir, c, berth.InfrastructureConfig{}, func() time.Time { return time.Now().Add(5 * time.Minute) })
	if task := p.until(id, ended); task.State != berth.StateSucceeded {
		t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
	}
}

func TestAPodThatMayNotBeLookedForNowFailsNoTask(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	id := intended(t, dir, c)
	answer := inTurn(forbidden, forbidden, forbidden)
	c.onFind = func(Order) error { return answer() }
	c.autoEnd = true
	p := start(t, dir, c, berth.InfrastructureConfig{})
	p.until(id, func(t berth.Task) bool { return t.Diagnosis != nil && t.Diagnosis.Cause == berth.CauseForbidden })
	if task := p.until(id, ended); task.State != berth.StateSucceeded {
		t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
	}
}

// A pod that may exist may run, so its task is not over because it was
// cancelled and nobody could look.
func TestACancelledTaskIsOverOnceItsPodIsKnownNotToExist(t *testing.T) {
	c := newCluster()
	looked := make(chan struct{}, 10)
	c.afterCreate = func(Order) error { return unanswered }
	c.onFind = func(Order) error { looked <- struct{}{}; return forbidden }
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	go p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
	<-looked
	life, err := p.store.ByKey(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	id := life.Task.ID
	if _, err := p.engine.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	<-looked
	if task, _ := p.engine.Task(t.Context(), id); task.State.Terminal() {
		t.Errorf("the task is %s, and its pod may run", task.State)
	}
	c.mu.Lock()
	c.onFind = nil
	c.mu.Unlock()
	if task := p.until(id, ended); task.State != berth.StateCancelled {
		t.Errorf("the task is %s", task.State)
	}
	p.settled(id)
	if _, deleted, left := c.counts(); deleted != 1 || left != 0 {
		t.Errorf("%d pods were deleted, %d are left", deleted, left)
	}
}

// A create without an answer that could not be looked for either, whose pod ran
// and was deleted by another hand meanwhile: it is not run again.
func TestAPodThatWasThereBeforeItCouldBeLookedForRunsOnce(t *testing.T) {
	c := newCluster()
	c.afterCreate = func(order Order) error {
		delete(c.pods, order.Pod)
		c.vouched = true
		return unanswered
	}
	answer := inTurn(unreachable)
	c.onFind = func(Order) error { return answer() }
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	if task := p.until(p.submit(nil).ID, ended); task.State != berth.StateLost {
		t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
	}
	if made, _, _ := c.counts(); made != 1 {
		t.Errorf("%d pods were made", made)
	}
}

// While an API server starts it forbids everything. That is no reason to refuse
// a task to an infrastructure that was ready before.
func TestASubmissionWhileAnAPIServerStartsIsTaken(t *testing.T) {
	c := newCluster()
	c.autoEnd = true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	p.until(p.submit(nil).ID, ended)
	c.mu.Lock()
	c.sink.Lost(forbidden)
	c.mu.Unlock()
	task := p.submit(nil)
	c.mu.Lock()
	c.list()
	c.mu.Unlock()
	if task := p.until(task.ID, ended); task.State != berth.StateSucceeded {
		t.Errorf("the task is %s", task.State)
	}
}

func TestARightThatIsMissingForLongRefusesSubmissions(t *testing.T) {
	c := newCluster()
	now := time.Now()
	p := startAt(t, t.TempDir(), c, berth.InfrastructureConfig{}, func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return now })
	p.submit(nil)
	c.mu.Lock()
	c.sink.Lost(forbidden)
	c.mu.Unlock()
	for p.engine.loop("here").health.Load().State != berth.InfraForbidden {
		<-time.After(time.Millisecond)
	}
	c.mu.Lock()
	now = now.Add(time.Minute)
	c.mu.Unlock()
	if _, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}}); berth.CodeOf(err) != berth.CodeForbidden {
		t.Errorf("submitted: %v", err)
	}
}

func TestAPreflightWhileAnAPIServerStartsRefusesNothing(t *testing.T) {
	c := newCluster()
	c.autoEnd = true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	p.until(p.submit(nil).ID, ended)
	answer := inTurn(forbidden)
	c.onPreflight = func(context.Context, Order) error { c.mu.Lock(); defer c.mu.Unlock(); return answer() }
	p.until(p.submit(nil).ID, ended)
}

// A clock that was set back while nobody looked lets no retry wait for as long.
func TestAClockThatWasSetBackDelaysNoRetry(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	yesterday := func() time.Time { return time.Now().Add(24 * time.Hour) }
	p := startAt(t, dir, c, berth.InfrastructureConfig{}, yesterday)
	task := p.submit(func(s *berth.TaskSpec) { s.Retries = 1 })
	c.ends(*task.Pod, 1)
	p.until(task.ID, func(t berth.Task) bool { return t.State == berth.StateQueued })
	p.crash()
	c.mu.Lock()
	c.sink = nil
	c.mu.Unlock()
	p = start(t, dir, c, berth.InfrastructureConfig{})
	p.until(task.ID, func(berth.Task) bool {
		life := p.engine.hub.life(task.ID)
		return time.Until(life.NotBefore) <= 5*time.Minute
	})
}

// The time of day is set a day ahead, and back: what waits is given as long as before.
func TestAClockThatIsSetEndsNoPatience(t *testing.T) {
	c := newCluster()
	var offset atomic.Int64
	p := startAt(t, t.TempDir(), c, berth.InfrastructureConfig{}, func() time.Time { return jumped(time.Now(), time.Duration(offset.Load())) })
	task := p.submit(nil)
	for _, to := range []time.Duration{24 * time.Hour, -24 * time.Hour, 0} {
		offset.Store(int64(to))
		c.mu.Lock()
		c.sink.Observed(c.pods[*task.Pod]) // something happens, and nothing has changed
		c.mu.Unlock()
		now := jumped(time.Now(), to)
		p.until(task.ID, func(berth.Task) bool {
			deadline, _ := p.engine.hub.life(task.ID).Deadline(berth.DefaultGrace)
			left := deadline.Sub(now)
			return left > berth.DefaultGrace.Start-time.Minute && left <= berth.DefaultGrace.Start+time.Minute
		})
	}
	c.ends(*task.Pod, 0)
	if task := p.until(task.ID, ended); task.State != berth.StateSucceeded {
		t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
	}
}

// jumped is a time of a clock whose time of day alone was set.
func jumped(now time.Time, by time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&now)) // seconds are in bits 30 to 62
	*wall += uint64(int64(by/time.Second)) << 30
	return now
}

// forbiddenFromTheStart is a process that is refused everything by an
// infrastructure that the one before it has used.
func forbiddenFromTheStart(t *testing.T, c *cluster, now func() time.Time) *process {
	t.Helper()
	c.autoEnd = true
	dir := t.TempDir()
	p := start(t, dir, c, berth.InfrastructureConfig{})
	p.until(p.submit(nil).ID, ended)
	p.crash()
	c.identErr = forbidden
	return startAt(t, dir, c, berth.InfrastructureConfig{}, now)
}

// A process that never saw an infrastructure ready can't tell an API server that
// starts from a namespace that isn't granted: it waits for what becomes of it.
func TestASubmissionToWhatIsForbiddenFromTheStartIsRefused(t *testing.T) {
	c := newCluster()
	now := time.Now()
	p := forbiddenFromTheStart(t, c, func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return now })
	refused := make(chan error, 1)
	go func() {
		_, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
		refused <- err
	}()
	eventually(t, func() bool { return p.engine.loop("here").health.Load().State == berth.InfraForbidden })
	c.mu.Lock()
	now = now.Add(time.Minute)
	c.mu.Unlock()
	if err := <-refused; berth.CodeOf(err) != berth.CodeForbidden {
		t.Errorf("submitted: %v", err)
	}
}

func TestASubmissionWhileAnAPIServerStartsWaitsForIt(t *testing.T) {
	c := newCluster()
	p := forbiddenFromTheStart(t, c, time.Now)
	eventually(t, func() bool { return p.engine.loop("here").health.Load().State == berth.InfraForbidden })
	c.mu.Lock()
	c.identErr = nil
	c.mu.Unlock()
	p.until(p.submit(nil).ID, ended)
}
