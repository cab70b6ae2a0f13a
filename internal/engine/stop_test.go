package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// heldLease is a lease that a test takes away and gives back.
type heldLease struct {
	mu   sync.Mutex
	left time.Duration
}

func (h *heldLease) Left(string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left
}

func (h *heldLease) set(left time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = left
}

func TestAnInfrastructureThatIsStoppedIsTakenUpByTheNext(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	a := start(t, dir, c, berth.InfrastructureConfig{})
	task := a.submit(nil)
	pod := *a.until(task.ID, func(t berth.Task) bool { return t.Pod != nil }).Pod
	a.engine.Stop("here")
	if names := a.engine.Infrastructures(); len(names) != 0 {
		t.Errorf("it still reconciles %v", names)
	}
	c.ends(pod, 0) // which nobody sees
	if got, err := a.engine.Task(t.Context(), task.ID); err != nil || got.State.Terminal() {
		t.Errorf("a stopped loop stored something: %+v, %v", got, err)
	}
	if _, err := a.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: task.Spec}); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("a submission to a stopped loop: %v", err)
	}
	a.engine.Stop("here") // which does nothing

	b := start(t, dir, c, berth.InfrastructureConfig{})
	if got := b.until(task.ID, ended); got.State != berth.StateSucceeded {
		t.Errorf("%s", got.State)
	}
	b.settled(task.ID)
	if made, _, left := c.counts(); made != 1 || left != 0 {
		t.Errorf("%d pods were made, %d are left", made, left)
	}
}

// Without its lease an engine creates and deletes nothing; with it again it goes on.
func TestWithoutItsLeaseAnEngineDoesNothing(t *testing.T) {
	c := newCluster()
	lease := &heldLease{left: time.Hour}
	p := startAt(t, t.TempDir(), c, berth.InfrastructureConfig{}, time.Now, func(e *Engine) { e.Under(lease) })
	first := p.submit(nil)
	pod := *p.until(first.ID, func(t berth.Task) bool { return t.Pod != nil }).Pod

	lease.set(0)
	// It is stored here, as the store of the test knows no leases.
	second, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: first.Spec})
	if err != nil {
		t.Fatal(err)
	}
	if made, _, _ := c.counts(); made != 1 {
		t.Errorf("%d pods were made", made)
	}
	c.ends(pod, 0)
	p.until(first.ID, ended)
	if _, deleted, left := c.counts(); deleted != 0 || left != 1 {
		t.Errorf("%d pods were deleted, %d are left", deleted, left)
	}

	lease.set(time.Hour)
	other := *p.until(second.ID, func(t berth.Task) bool {
		made, _, _ := c.counts()
		return made == 2 && t.Pod != nil
	}).Pod
	c.ends(other, 0)
	for _, id := range []string{first.ID, second.ID} {
		p.until(id, ended)
		p.settled(id)
	}
	if made, _, left := c.counts(); made != 2 || left != 0 {
		t.Errorf("%d pods were made, %d are left", made, left)
	}
}

// A call may take longer than a lease lasts, which is renewed meanwhile, and is
// broken off when it isn't.
func TestACallLastsAsLongAsTheLeaseIsHeld(t *testing.T) {
	lease := &heldLease{left: 20 * time.Millisecond}
	l := newLoop(New(nil, nil, nil, nil, nil), "here")
	l.engine.Under(lease)
	held, cancel, ok := l.whileHeld(t.Context())
	defer cancel()
	if !ok {
		t.Fatal("not held")
	}
	select {
	case <-held.Done():
		t.Fatal("broken off while the lease was renewed")
	case <-time.After(200 * time.Millisecond): // ten times as long as it lasts
	}
	lease.set(0)
	select {
	case <-held.Done():
	case <-time.After(10 * time.Second):
		t.Error("it goes on without the lease")
	}
	if _, _, ok := l.whileHeld(t.Context()); ok {
		t.Error("another call is begun")
	}
}
