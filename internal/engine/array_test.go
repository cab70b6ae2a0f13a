package engine

import (
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func (p *process) submitArray(key string, n int) berth.Array {
	p.t.Helper()
	s := berth.ArraySubmission{Key: key, Spec: berth.TaskSpec{Image: "busybox", Args: []string{"{index}"}, Infrastructure: "here"}}
	for i := range n {
		s.Indices = append(s.Indices, i)
	}
	array, err := p.engine.SubmitArray(p.t.Context(), "ann", "ann", s)
	if err != nil {
		p.t.Fatal(err)
	}
	return array
}

// over waits until all tasks of an array have ended.
func (p *process) over(id string) berth.Array {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	var last berth.Array
	for array, err := range p.engine.WatchArray(p.t.Context(), id) {
		if err != nil {
			p.t.Fatal(err)
		}
		if last = array; time.Now().After(deadline) {
			p.t.Fatalf("the array stays as it is: %v", array.States)
		}
	}
	return last
}

func TestAnArrayRunsEachOfItsTasksOnce(t *testing.T) {
	c := newCluster()
	c.autoEnd = true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 7}})
	array := p.submitArray("k", 100)
	if again := p.submitArray("k", 100); again.ID != array.ID {
		t.Error("the same key gave another array")
	}
	if array = p.over(array.ID); array.States[berth.StateSucceeded] != 100 {
		t.Errorf("it ended as %v", array.States)
	}
	if made, _, _ := c.counts(); made != 100 {
		t.Errorf("%d pods were made", made)
	}
	page, err := p.store.Tasks(t.Context(), berth.TaskQuery{Array: array.ID, Limit: 1000}, berth.Caller{Role: berth.RoleAdmin})
	if err != nil || len(page.Tasks) != 100 {
		t.Fatalf("%d tasks, %v", len(page.Tasks), err)
	}
	if last := page.Tasks[0]; last.Array == nil || last.Array.Index != 99 || last.Spec.Args[0] != "99" {
		t.Errorf("the last is %+v", last.Array)
	}
}

// A page of the queue that is read while a cancel is not stored yet shows tasks
// that are over once it is: none of them comes to life again. Which step reads
// the page is a matter of luck, so it is tried some times.
func TestACancelledArrayEnds(t *testing.T) {
	for range 5 {
		cancelArray(t)
	}
}

func cancelArray(t *testing.T) {
	c := newCluster()
	dir := t.TempDir()
	p := start(t, dir, c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 3}})
	array := p.submitArray("k", 2*arrayPage+50)
	if _, err := p.engine.CancelArray(t.Context(), array.ID); err != nil {
		t.Fatal(err)
	}
	p.crash() // wherever it is
	p = start(t, dir, c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 3}})
	if array = p.over(array.ID); array.States[berth.StateCancelled] != array.Size {
		t.Errorf("it ended as %v", array.States)
	}
	if made, _, _ := c.counts(); made > 50 {
		t.Errorf("%d pods were made", made)
	}
	p.crash()
}

// What waits is taken up by the next process, and each runs once.
func TestAQueueOutlivesItsProcess(t *testing.T) {
	c := newCluster()
	dir := t.TempDir()
	p := start(t, dir, c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 2}})
	array := p.submitArray("k", 40)
	single := p.submit(nil)
	c.mu.Lock()
	c.autoEnd = true
	c.mu.Unlock()
	p.crash()
	p = start(t, dir, c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 2}})
	c.mu.Lock()
	for name := range c.pods {
		c.end(name, 0)
	}
	c.mu.Unlock()
	p.over(array.ID)
	p.until(single.ID, ended)
	if made, _, _ := c.counts(); made != 41 {
		t.Errorf("%d pods were made", made)
	}
	if _, live, queued := p.engine.Health("here"); live != 0 || queued != 0 {
		t.Errorf("%d live, %d queued", live, queued)
	}
}

// Tasks of an array that may run anywhere go where there is room, run once each,
// and are cancelled with the others.
func TestTasksMoveWhileTheyWait(t *testing.T) {
	here, there := newCluster(), newCluster()
	p := start(t, t.TempDir(), here, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 2}})
	if err := p.engine.Start(t.Context(), berth.InfrastructureConfig{Name: "there", Limits: berth.Limits{MaxPods: 3}, Grace: berth.DefaultGrace}, there); err != nil {
		t.Fatal(err)
	}
	s := berth.ArraySubmission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}, Among: []string{"here", "there"}}
	for i := range 12 {
		s.Indices = append(s.Indices, i)
	}
	array, err := p.engine.SubmitArray(t.Context(), "ann", "ann", s)
	if err != nil {
		t.Fatal(err)
	}
	fixed := p.submit(nil)
	p.engine.Settle(t.Context(), "there")
	lives := p.engine.Front(t.Context(), "here", 100)
	moved := p.engine.Move(t.Context(), "here", "there", "there is room", lives, func(*berth.Life) string { return "ann" })
	if moved != 10 {
		t.Errorf("%d moved", moved)
	}
	if task, _ := p.engine.Task(t.Context(), fixed.ID); task.Infrastructure != "here" {
		t.Error("a task whose place was chosen by a person moved")
	}
	if _, live, queued := p.engine.Health("here"); live != 3 || queued != 1 {
		t.Errorf("at home %d live, %d queued", live, queued)
	}
	eventually(t, func() bool { made, _, _ := there.counts(); return made == 3 })
	if _, err := p.engine.CancelArray(t.Context(), array.ID); err != nil {
		t.Fatal(err)
	}
	if array = p.over(array.ID); array.States[berth.StateCancelled] != 12 {
		t.Errorf("it ended as %v", array.States)
	}
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("it never holds")
		}
		time.Sleep(time.Millisecond)
	}
}
