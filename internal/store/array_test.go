package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// arrayOf returns an array of n tasks with priorities 0 to 2, and what gives them.
func arrayOf(id string, n int) (*berth.Array, func() (*berth.Change, error)) {
	array := &berth.Array{ID: id, Infrastructure: "here", Owner: "ann", CreatedAt: t0}
	i := 0
	return array, func() (*berth.Change, error) {
		if i == n {
			return nil, nil
		}
		c := newLife(fmt.Sprintf("%s-%05d", id, i), "here", func(spec *berth.TaskSpec) { spec.Priority = i % 3 })
		c.Life.Share, c.Life.Task.Array = "ann", &berth.ArrayItem{ID: id, Index: i}
		i++
		return &c, nil
	}
}

// More tasks than are sent at once.
const many = 2*rowsAStatement + 100

func TestAnArrayIsStoredAsOne(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		array, next := arrayOf("x", many)
		if err := s.AddArray(t.Context(), "key-x", array, next); err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func() (berth.Array, error){
			"by id":  func() (berth.Array, error) { return s.Array(t.Context(), "x") },
			"by key": func() (berth.Array, error) { return s.ArrayByKey(t.Context(), "key-x") },
		} {
			got, err := read()
			if err != nil || got.ID != "x" || got.States[berth.StateQueued] != many || got.CancelledAt != nil {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
		if n, err := s.CountUnended(t.Context(), "here"); err != nil || n != many {
			t.Errorf("%d have not ended, %v", n, err)
		}
		var ids []string
		for after := -1; ; {
			page, last, err := s.ArrayTasks(t.Context(), "x", []berth.TaskState{berth.StateQueued, berth.StateRunning}, after, 1500)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			ids, after = append(ids, page...), last
		}
		if len(ids) != many || !slices.IsSorted(ids) {
			t.Errorf("%d tasks, in order: %v", len(ids), slices.IsSorted(ids))
		}
		page, err := s.Tasks(t.Context(), berth.TaskQuery{Array: "x", Limit: 2}, berth.Caller{Role: berth.RoleAdmin})
		if err != nil || len(page.Tasks) != 2 || page.Next == "" {
			t.Errorf("%d tasks listed, %v", len(page.Tasks), err)
		}
	})
}

func TestAnArrayThatCannotBeStoredLeavesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		refused := errors.New("refused")
		for name, at := range map[string]int{"early": 1, "late": many - 1} {
			array, next := arrayOf("x", many)
			n := 0
			err := s.AddArray(t.Context(), "key-x", array, func() (*berth.Change, error) {
				if n++; n > at {
					return nil, refused
				}
				return next()
			})
			if !errors.Is(err, refused) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.Array(t.Context(), "x"); berth.CodeOf(err) != berth.CodeNotFound {
				t.Errorf("%s: the array is there: %v", name, err)
			}
			if n, err := s.CountUnended(t.Context(), "here"); err != nil || n != 0 {
				t.Errorf("%s: %d tasks are there, %v", name, n, err)
			}
		}
		array, next := arrayOf("x", 3)
		if err := s.AddArray(t.Context(), "key-x", array, next); err != nil {
			t.Errorf("after that: %v", err)
		}
	})
}

func TestQueuedTasksComeByPriorityAndAge(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		array, next := arrayOf("x", 10)
		if err := s.AddArray(t.Context(), "key-x", array, next); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), []berth.Change{newLife("another-share", "here", func(spec *berth.TaskSpec) { spec.Priority = 100 })}); err != nil {
			t.Fatal(err)
		}
		shares, err := s.Shares(t.Context(), "here")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int{"ann": 10, "": 1}, shares); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var got []string
		var last *berth.Life
		for {
			page, err := s.Queued(t.Context(), "here", "ann", last, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, life := range page {
				got = append(got, life.Task.ID)
				last = life
			}
		}
		want := []string{"x-00002", "x-00005", "x-00008", "x-00001", "x-00004", "x-00007", "x-00000", "x-00003", "x-00006", "x-00009"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if live, err := s.Live(t.Context(), "here"); err != nil || len(live) != 0 {
			t.Errorf("what merely waits is live: %v, %v", live, err)
		}
		if names, err := s.LiveInfrastructures(t.Context()); err != nil || !slices.Equal(names, []string{"here"}) {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func TestACancelledArrayIsKnownUntilItsTasksAre(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		array, next := arrayOf("x", 1)
		if err := s.AddArray(t.Context(), "key-x", array, next); err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{t0, t0.Add(time.Hour)} {
			if err := s.CancelArray(t.Context(), "x", at); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Array(t.Context(), "x"); err != nil || got.CancelledAt == nil || !got.CancelledAt.Equal(t0) {
			t.Errorf("%+v, %v", got, err)
		}
		if ids, err := s.CancelledArrays(t.Context(), "here"); err != nil || !slices.Equal(ids, []string{"x"}) {
			t.Errorf("%v, %v", ids, err)
		}
		life, err := s.Life(t.Context(), "x-00000")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), []berth.Change{{Life: life, Events: life.Cancel(t0)}}); err != nil {
			t.Fatal(err)
		}
		if ids, err := s.CancelledArrays(t.Context(), "here"); err != nil || len(ids) != 0 {
			t.Errorf("after its tasks were: %v, %v", ids, err)
		}
		page, err := s.Arrays(t.Context(), berth.ArrayQuery{}, berth.Caller{Name: "ann", Role: berth.RoleWrite, Infrastructures: []string{"here"}})
		if err != nil || len(page.Arrays) != 1 || page.Arrays[0].States[berth.StateCancelled] != 1 {
			t.Errorf("%+v, %v", page, err)
		}
	})
}
