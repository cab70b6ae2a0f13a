package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/store"
)

var at = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

// line is a queue over a real store.
type line struct {
	t     *testing.T
	store *store.Store
	queue *queue
	next  int
}

func newLine(t *testing.T) *line {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "berth.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return &line{t: t, store: st, queue: newQueue("here", st)}
}

// life is a queued task; ids count up.
func (l *line) life(share string, priority int) *berth.Life {
	l.next++
	id := fmt.Sprintf("t%06d", l.next)
	life, _ := berth.NewLife(id, share, id, berth.TaskSpec{Image: "i", Infrastructure: "here", Priority: priority}, at)
	life.Share = share
	return life
}

// arrive stores tasks and adds them to the queue, as a submission does.
func (l *line) arrive(share string, priority, count int) (ids []string) {
	var changes []berth.Change
	for range count {
		changes = append(changes, berth.Change{Life: l.life(share, priority), New: true})
	}
	if err := l.store.Commit(l.t.Context(), changes); err != nil {
		l.t.Fatal(err)
	}
	for _, c := range changes {
		l.queue.add(c.Life)
		ids = append(ids, c.Life.Task.ID)
	}
	return ids
}

// take lets count tasks through and returns their ids.
func (l *line) take(count int) (ids []string) {
	l.t.Helper()
	for range count {
		life, err := l.queue.next(context.Background())
		if err != nil {
			l.t.Fatal(err)
		}
		if life == nil {
			break
		}
		l.queue.share(life.Share).open++
		life = life.Clone()
		life.Admit(at)
		if err := l.store.Commit(l.t.Context(), []berth.Change{{Life: life}}); err != nil {
			l.t.Fatal(err)
		}
		ids = append(ids, life.Task.ID)
	}
	return ids
}

func TestTasksOfOneShareComeByPriorityAndThenByAge(t *testing.T) {
	l := newLine(t)
	old := l.arrive("ann", 0, 2)
	low := l.arrive("ann", -5, 1)
	high := l.arrive("ann", 7, 2)
	if got, want := l.take(10), slices.Concat(high, old, low); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSharesWithFewerTasksUnderWayGoFirst(t *testing.T) {
	l := newLine(t)
	l.arrive("ann", 900, 1000)
	bob := l.arrive("bob", 0, 3)
	l.take(6)
	if open := l.queue.share("bob").open; open != 3 {
		t.Errorf("of six, %d were bob's", open)
	}
	for _, id := range bob {
		if l.queue.in[id] != nil {
			t.Errorf("task %s of bob still waits", id)
		}
	}
	if got := len(l.take(5000)); got != 997 {
		t.Errorf("%d came then", got)
	}
}

// What waits is read a page at a time, and nothing of it is left out or comes
// twice, whatever arrives meanwhile.
func TestALongQueueIsInTheStore(t *testing.T) {
	l := newLine(t)
	all := l.arrive("ann", 0, 5*keepLimit)
	if here := len(l.queue.in); here > keepLimit {
		t.Errorf("%d tasks are in memory", here)
	}
	got := l.take(pageLimit + 10)
	urgent := l.arrive("ann", 1, 3)
	all = append(all, l.arrive("ann", 0, 700)...)
	next := l.take(5)
	if !slices.Equal(next[:3], urgent) {
		t.Errorf("the urgent ones did not come first: %v", next)
	}
	got = append(got, next[3:]...)
	if got = append(got, l.take(len(all)+100)...); !slices.Equal(got, all) {
		t.Errorf("%d came, of %d, or in another order", len(got), len(all))
	}
}

func TestTasksThatWereStoredBehindTheQueueAreFound(t *testing.T) {
	l := newLine(t)
	l.arrive("ann", 0, 3)
	l.take(1)
	urgent := l.life("ann", 3)
	if err := l.store.Commit(t.Context(), []berth.Change{{Life: urgent, New: true}}); err != nil {
		t.Fatal(err)
	}
	l.queue.stored(urgent)
	if got := l.take(10); len(got) != 3 || got[0] != urgent.Task.ID {
		t.Errorf("got %v", got)
	}
}

func TestATaskThatIsRemovedDoesNotCome(t *testing.T) {
	l := newLine(t)
	ids := l.arrive("ann", 0, 3)
	l.queue.remove(ids[1])
	if got := l.take(2); !slices.Equal(got, []string{ids[0], ids[2]}) {
		t.Errorf("got %v", got)
	}
}

// Those that ask for what a quota refused are not tried one after the other.
func TestHeldTasksStandInTheWayOfTheirKindAlone(t *testing.T) {
	l := newLine(t)
	ids := l.arrive("ann", 0, 10)
	small := l.life("ann", 0)
	small.Task.Spec.CPU = "100m"
	if err := l.store.Commit(t.Context(), []berth.Change{{Life: small, New: true}}); err != nil {
		t.Fatal(err)
	}
	l.queue.add(small)
	first, _ := l.queue.next(t.Context())
	l.queue.hold(first)
	if got := l.take(10); !slices.Equal(got, []string{small.Task.ID}) {
		t.Errorf("got %v", got)
	}
	if id := l.queue.release(requestOf(&first.Task.Spec)); id != ids[0] {
		t.Errorf("released %s", id)
	}
	if got := l.take(10); !slices.Equal(got, ids[1:]) {
		t.Errorf("afterwards %v", got)
	}
}

func BenchmarkAdmission(b *testing.B) {
	for _, queued := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(queued), func(b *testing.B) {
			st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "berth.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			l := &line{store: st, queue: newQueue("here", st)}
			var changes []berth.Change
			for range queued {
				changes = append(changes, berth.Change{Life: l.life("ann", 0), New: true})
			}
			if err := st.Commit(b.Context(), changes); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				l.queue.share("ann").more = true
				if _, err := l.queue.next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
