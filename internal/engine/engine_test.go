package engine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-run/berth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ended(t berth.Task) bool { return t.State.Terminal() }

func created(t berth.Task) bool { return t.State == berth.StateLaunching }

func TestATaskRunsAndNothingIsLeft(t *testing.T) {
	c := newCluster()
	c.autoEnd = true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	if task = p.until(task.ID, ended); task.State != berth.StateSucceeded {
		t.Fatalf("the task is %s: %v", task.State, task.Diagnosis)
	}
	p.settled(task.ID)
	if made, _, left := c.counts(); made != 1 || left != 0 {
		t.Errorf("%d pods were made, %d are left", made, left)
	}
}

func TestTheSameKeyIsTheSameTask(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	ids := map[string]bool{}
	results := make(chan string)
	for range 20 {
		go func() {
			task, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "once", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
			if err != nil {
				results <- err.Error()
				return
			}
			results <- task.ID
		}()
	}
	for range 20 {
		ids[<-results] = true
	}
	if made, _, _ := c.counts(); len(ids) != 1 || made != 1 {
		t.Errorf("%d answers %v, %d pods", len(ids), ids, made)
	}
}

func TestACrashBetweenIntentAndCreateMakesOnePod(t *testing.T) {
	tests := []struct {
		name        string
		reached     bool // the create reached the cluster
		gone        bool // ... and the pod vanished since
		vouchErr    error
		want        berth.TaskState
		wantCreated int
	}{
		{name: "not sent", want: berth.StateSucceeded, wantCreated: 1},
		{name: "done, answer lost", reached: true, want: berth.StateSucceeded, wantCreated: 1},
		{name: "done and gone", reached: true, gone: true, want: berth.StateLost, wantCreated: 1},
		{name: "not sent, no witness, a moment ago", vouchErr: errors.New("events are forbidden"), want: berth.StateSucceeded, wantCreated: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir, c := t.TempDir(), newCluster()
			sent := make(chan struct{})
			block := make(chan struct{})
			hang := func(Order) error { close(sent); c.mu.Unlock(); <-block; c.mu.Lock(); return errors.New("killed") }
			if test.reached {
				c.afterCreate = hang
			} else {
				c.onCreate = hang
			}
			p := start(t, dir, c, berth.InfrastructureConfig{})
			go p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
			<-sent
			life, err := p.store.ByKey(t.Context(), "k")
			if err != nil {
				t.Fatal("the intent was not stored before the create was sent: ", err)
			}
			// What a killed process has under way has no effect any more.
			c.mu.Lock()
			c.onCreate, c.afterCreate, c.sink = nil, nil, nil
			if test.gone {
				clear(c.pods)
				c.vouched = true
			}
			c.vouchErr = test.vouchErr
			c.mu.Unlock()
			p.crash()
			close(block)

			p = start(t, dir, c, berth.InfrastructureConfig{})
			id := life.Task.ID
			if test.want == berth.StateSucceeded {
				p.until(id, func(berth.Task) bool {
					l := p.engine.hub.life(id)
					return l != nil && l.Current() != nil && l.Current().UID != ""
				})
				c.ends(berth.PodName(id, 1, 0), 0)
			}
			if task := p.until(id, ended); task.State != test.want {
				t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
			}
			if made, _, _ := c.counts(); made != test.wantCreated {
				t.Errorf("%d pods were made", made)
			}
			if test.want == berth.StateLost { // it may have printed something
				life := p.settled(id)
				if a, said := life.Attempts[0], p.log(id); a.Logs != berth.LogsIncomplete || said != "output from its beginning to its end could not be read: the pod is gone" {
					t.Errorf("its log is %s: %q", a.Logs, said)
				}
			}
		})
	}
}

func TestAnOutcomeThatNobodyWatchedIsFound(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	p := start(t, dir, c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	p.crash()
	c.mu.Lock()
	c.sink = nil
	c.mu.Unlock()
	c.ends(*task.Pod, 5)
	p = start(t, dir, c, berth.InfrastructureConfig{})
	if task = p.until(task.ID, ended); *task.ExitCode != 5 {
		t.Errorf("exit code %d", *task.ExitCode)
	}
	p.settled(task.ID)
}

func TestAPodOfAnotherIsNeitherAdoptedNorDeleted(t *testing.T) {
	c := newCluster()
	c.onCreate = func(o Order) error {
		if o.Pod == berth.PodName(o.TaskID, o.Attempt, 0) {
			c.foreign[o.Pod] = true
		}
		return nil
	}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	task = p.until(task.ID, func(t berth.Task) bool { return *t.Pod == berth.PodName(t.ID, 1, 1) })
	c.ends(*task.Pod, 0)
	p.until(task.ID, ended)
	p.settled(task.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pod := range c.deleted {
		if c.foreign[pod] {
			t.Errorf("the pod %s of another was deleted", pod)
		}
	}
}

func TestACreateThatTimedOutIsLookedFor(t *testing.T) {
	c := newCluster()
	first := true
	c.afterCreate = func(Order) error {
		if first {
			first = false
			return &Refusal{Kind: RefusedUnknown, Err: errors.New("timeout")}
		}
		return nil
	}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	c.ends(*task.Pod, 0)
	p.until(task.ID, ended)
	if made, _, _ := c.counts(); made != 1 {
		t.Errorf("%d pods were made", made)
	}
}

func TestCancelWhileTheCreateIsInFlight(t *testing.T) {
	c := newCluster()
	sent, answer := make(chan struct{}), make(chan struct{})
	c.afterCreate = func(Order) error { close(sent); c.mu.Unlock(); <-answer; c.mu.Lock(); return nil }
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	go p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
	<-sent
	life, err := p.store.ByKey(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.engine.Cancel(t.Context(), life.Task.ID); err != nil {
		t.Fatal(err)
	}
	close(answer)
	if task := p.until(life.Task.ID, ended); task.State != berth.StateCancelled {
		t.Errorf("the task is %s", task.State)
	}
	p.settled(life.Task.ID)
	if _, _, left := c.counts(); left != 0 {
		t.Error("the pod was left")
	}
}

func TestACreateThatWaitsIsGivenUpWhenTheTaskIsCancelled(t *testing.T) {
	c := newCluster()
	sent := make(chan struct{})
	c.onCreate = func(order Order) error {
		close(sent)
		c.mu.Unlock()
		defer c.mu.Lock()
		<-order.Unwanted
		return &Refusal{Kind: RefusedTransient, Err: errors.New("not wanted")}
	}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	go p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
	<-sent
	life, err := p.store.ByKey(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.engine.Cancel(t.Context(), life.Task.ID); err != nil {
		t.Fatal(err)
	}
	if task := p.until(life.Task.ID, ended); task.State != berth.StateCancelled {
		t.Errorf("the task is %s", task.State)
	}
	p.settled(life.Task.ID)
	if made, _, _ := c.counts(); made != 0 {
		t.Errorf("%d pods were made", made)
	}
}

func TestMaxPodsIsKept(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 3}})
	var ids []string
	for range 10 {
		ids = append(ids, p.submit(nil).ID)
	}
	if made, _, _ := c.counts(); made != 3 {
		t.Fatalf("%d pods were made", made)
	}
	for i := range ids {
		task := p.until(ids[i], created)
		if made, _, _ := c.counts(); made > i+3 {
			t.Fatalf("%d pods were made after %d ends", made, i)
		}
		c.ends(*task.Pod, 0)
		p.until(ids[i], ended)
	}
}

func TestAQuotaHoldsTasksAndItsChangeWakesThem(t *testing.T) {
	c := newCluster()
	room, asked := 1, 0
	c.onCreate = func(Order) error {
		asked++
		if room == 0 {
			return &Refusal{Kind: RefusedQuota, Diagnosis: &berth.Diagnosis{Cause: berth.CauseQuotaExceeded, Summary: "full"}}
		}
		room--
		return nil
	}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	var ids []string
	for range 5 {
		ids = append(ids, p.submit(nil).ID)
	}
	for i, id := range ids[1:] {
		held := p.until(id, func(t berth.Task) bool { return t.Diagnosis != nil })
		if held.State != berth.StateQueued || held.Diagnosis.Cause != berth.CauseQuotaExceeded {
			t.Fatalf("task %d is %s: %v", i, held.State, held.Diagnosis)
		}
	}
	for range ids {
		var pod string
		for pod == "" { // the next is let through once the quota's change was told
			pod = c.existing()
		}
		c.mu.Lock()
		id := c.pods[pod].TaskID
		c.mu.Unlock()
		c.ends(pod, 0)
		p.until(id, ended)
		c.mu.Lock()
		room++
		c.mu.Unlock()
		c.quota <- struct{}{}
	}
	for _, id := range ids {
		p.until(id, ended)
	}
	if asked > 25 {
		t.Errorf("%d creates were tried for 5 tasks", asked)
	}
}

// An admission that has not heard of a change when its watchers have refuses as
// before, and nothing more is told.
func TestAQuotaWhoseChangeIsToldBeforeItCounts(t *testing.T) {
	c := newCluster()
	told, late := false, 1
	c.onCreate = func(Order) error {
		if told && late == 0 {
			return nil
		}
		if told {
			late--
		}
		return &Refusal{Kind: RefusedQuota, Diagnosis: &berth.Diagnosis{Cause: berth.CauseQuotaExceeded, Summary: "full"}}
	}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	id := p.submit(nil).ID
	p.until(id, func(t berth.Task) bool { return t.State == berth.StateQueued && t.Diagnosis != nil })
	c.mu.Lock()
	told = true
	c.mu.Unlock()
	c.quota <- struct{}{}
	eventually(t, func() bool { return c.existing() != "" })
	c.ends(c.existing(), 0)
	p.until(id, ended)
}

func TestAClusterOutOfReachFailsNoTask(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{Grace: berth.Grace{Start: 300 * time.Millisecond, Pull: time.Millisecond, Config: time.Millisecond}})
	task := p.submit(nil)
	c.mu.Lock()
	c.sink.Lost(&Refusal{Kind: RefusedUnreachable, Diagnosis: &berth.Diagnosis{Cause: berth.CauseClusterUnreachable, Summary: "no route"}})
	c.mu.Unlock()
	stale := p.until(task.ID, func(t berth.Task) bool { return t.Stale != nil })
	if stale.Diagnosis == nil || stale.Diagnosis.Cause != berth.CauseClusterUnreachable {
		t.Errorf("what is shown meanwhile: %+v", stale.Diagnosis)
	}
	<-time.After(400 * time.Millisecond) // the grace would have passed
	if task, _ = p.engine.Task(t.Context(), task.ID); task.State != berth.StateLaunching {
		t.Fatalf("the task is %s", task.State)
	}
	c.mu.Lock()
	c.list()
	c.mu.Unlock()
	p.until(task.ID, func(t berth.Task) bool { return t.Stale == nil })
	if task = p.until(task.ID, ended); task.Diagnosis.Cause != berth.CauseStartTimedOut {
		t.Errorf("afterwards: %v", task.Diagnosis)
	}
}

func TestWhatWasNeverReachedTakesNoTask(t *testing.T) {
	c := newCluster()
	c.identErr = &Refusal{Kind: RefusedUnreachable, Diagnosis: &berth.Diagnosis{Cause: berth.CauseClusterUnreachable, Summary: "connection refused"}}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	_, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
	if berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("submitted: %v", err)
	}
	if _, err := p.store.ByKey(t.Context(), "k"); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("it was stored: %v", err)
	}
}

func TestAReplacedNamespaceIsLeftAlone(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	p := start(t, dir, c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	p.crash()
	c.identity = "another"
	clear(c.pods)
	p = start(t, dir, c, berth.InfrastructureConfig{})
	task = p.until(task.ID, func(t berth.Task) bool { return t.Stale != nil })
	if task.State != berth.StateLaunching {
		t.Errorf("the task is %s", task.State)
	}
	if _, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}}); berth.CodeOf(err) != berth.CodeConflict {
		t.Errorf("submitted: %v", err)
	}
}

func TestManyTasksEndOnce(t *testing.T) {
	c := newCluster()
	c.autoEnd = true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	const count = 500
	results := make(chan error)
	for range count {
		go func() {
			task, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}})
			if err == nil {
				for task, err = range p.engine.Watch(t.Context(), task.ID) {
					if err != nil {
						break
					}
				}
				if err == nil && task.State != berth.StateSucceeded {
					err = fmt.Errorf("the task is %s", task.State)
				}
			}
			results <- err
		}()
	}
	for range count {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if made, _, _ := c.counts(); made != count {
		t.Errorf("%d pods were made", made)
	}
}

func TestAListingThatBeganBeforeTheCreateLosesNothing(t *testing.T) {
	for name, set := range map[string]time.Duration{"": 0, "the clock was set back meanwhile": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			p := startAt(t, t.TempDir(), c, berth.InfrastructureConfig{}, func() time.Time { return time.Now().Add(set) })
			began := time.Now()
			task := p.submit(nil)
			c.mu.Lock()
			c.sink.Listed(nil, began) // it came too early for the pod
			c.mu.Unlock()
			c.ends(*task.Pod, 0)
			if task = p.until(task.ID, ended); task.State != berth.StateSucceeded {
				t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
			}
		})
	}
}

func TestAPodThatNeitherAListingNorTheWatchShowsIsLookedFor(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	began := time.Now()
	task := p.submit(nil)
	c.mu.Lock()
	clear(c.pods) // deleted by another hand, before the listing
	c.sink.Listed(nil, began)
	c.mu.Unlock()
	if task = p.until(task.ID, ended); task.State != berth.StateLost {
		t.Errorf("the task is %s: %v", task.State, task.Diagnosis)
	}
}

func TestATaskThatWaitsBehindOthersSaysSo(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 1}})
	first, second := p.submit(nil), p.submit(nil)
	waits := p.until(second.ID, func(t berth.Task) bool { return t.State == berth.StateQueued && t.Reason != nil })
	if want := "waits to be let through: 1 of at most 1 tasks run on here (limits: max_pods), 1 queued"; *waits.Reason != want {
		t.Errorf("it says %q, want %q", *waits.Reason, want)
	}
	c.ends(*p.until(first.ID, func(t berth.Task) bool { return t.Pod != nil }).Pod, 0)
	p.until(second.ID, func(t berth.Task) bool { return t.State != berth.StateQueued && t.Reason == nil })
}

// An API server that has just started knows no roles yet.
func TestARightThatIsBackSoonFailsNoTask(t *testing.T) {
	c := newCluster()
	tries := 0
	c.onCreate = func(Order) error {
		if tries++; tries == 1 {
			return &Refusal{Kind: RefusedForbidden, Diagnosis: &berth.Diagnosis{Cause: berth.CauseForbidden}}
		}
		return nil
	}
	c.autoEnd = true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	if task := p.until(p.submit(nil).ID, ended); task.State != berth.StateSucceeded {
		t.Errorf("the task is %s", task.State)
	}
}

func TestARightThatStaysAwayFailsTheTask(t *testing.T) {
	c := newCluster()
	c.onCreate = func(Order) error {
		return &Refusal{Kind: RefusedForbidden, Diagnosis: &berth.Diagnosis{Cause: berth.CauseForbidden}}
	}
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	if task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseForbidden {
		t.Errorf("while it waits: %+v", task.Diagnosis)
	}
	if task := p.until(task.ID, ended); task.State != berth.StateFailed || task.Diagnosis.Cause != berth.CauseForbidden {
		t.Errorf("the task is %s", task.State)
	}
}
