package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func opened(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newLife(id, infrastructure string, change func(*berth.TaskSpec)) berth.Change {
	spec := berth.TaskSpec{Image: "busybox", Infrastructure: infrastructure}
	if change != nil {
		change(&spec)
	}
	life, events := berth.NewLife(id, "ann", "key-"+id, spec, t0)
	return berth.Change{Life: life, Events: events, New: true}
}

func TestALifeIsReadAsItWasStored(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		c := newLife("a", "here", func(spec *berth.TaskSpec) { spec.Name, spec.Timeout = "first", time.Minute })
		if err := s.Commit(t.Context(), []berth.Change{c}); err != nil {
			t.Fatal(err)
		}
		events := c.Life.Admit(t0.Add(time.Second))
		if err := s.Commit(t.Context(), []berth.Change{{Life: c.Life, Events: events}}); err != nil {
			t.Fatal(err)
		}
		instance := s.Instance()
		s.Close()

		s = open()
		if s.Instance() != instance {
			t.Errorf("the instance changed from %s to %s", instance, s.Instance())
		}
		for name, read := range map[string]func() (*berth.Life, error){
			"by id":  func() (*berth.Life, error) { return s.Life(t.Context(), "a") },
			"by key": func() (*berth.Life, error) { return s.ByKey(t.Context(), "key-a") },
		} {
			got, err := read()
			if err != nil {
				t.Fatal(name, err)
			}
			if diff := cmp.Diff(c.Life, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		stored, err := s.Events(t.Context(), "a", 0, 10)
		if err != nil || len(stored) != 2 || stored[0].Type != berth.EventQueued || stored[1].Type != berth.EventAdmitted || stored[1].Seq <= stored[0].Seq || !stored[0].At.Equal(t0) {
			t.Errorf("events %+v, %v", stored, err)
		}
		if later, err := s.Events(t.Context(), "a", stored[0].Seq, 10); err != nil || len(later) != 1 {
			t.Errorf("events after the first: %+v, %v", later, err)
		}
	})
}

func TestACommitIsAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		twice := newLife("b", "here", nil)
		twice.Life.Key = "key-a"
		if err := s.Commit(t.Context(), []berth.Change{newLife("a", "here", nil), twice}); err == nil {
			t.Fatal("the same key was stored twice")
		}
		if _, err := s.Life(t.Context(), "a"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("half of a commit was stored: %v", err)
		}
	})
}

func TestSettledTasksAreNotLive(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		c := newLife("a", "here", nil)
		if err := s.Commit(t.Context(), []berth.Change{c, newLife("b", "there", nil)}); err != nil {
			t.Fatal(err)
		}
		names, err := s.LiveInfrastructures(t.Context())
		if err != nil || len(names) != 2 {
			t.Errorf("live: %v, %v", names, err)
		}
		if err := s.Commit(t.Context(), []berth.Change{{Life: c.Life, Events: c.Life.Cancel(t0)}}); err != nil {
			t.Fatal(err)
		}
		lives, err := s.Live(t.Context(), "here")
		if err != nil || len(lives) != 0 {
			t.Errorf("live after the end: %v, %v", lives, err)
		}
	})
}

func TestTasksAreListedNewestFirstInPages(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		var changes []berth.Change
		for i := range 10 {
			changes = append(changes, newLife(strconv.Itoa(i), "here", func(spec *berth.TaskSpec) {
				spec.Labels = map[string]string{"parity": strconv.Itoa(i % 2)}
			}))
		}
		if err := s.Commit(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
		var got []string
		q := berth.TaskQuery{Limit: 2, Labels: map[string]string{"parity": "1"}, States: []berth.TaskState{berth.StateQueued}}
		for {
			page, err := s.Tasks(t.Context(), q, berth.Caller{Role: berth.RoleAdmin})
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range page.Tasks {
				got = append(got, task.ID)
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
		if diff := cmp.Diff([]string{"9", "7", "5", "3", "1"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestADataDirectoryBelongsToOneInfraFile(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "berth.db"))
	if err := errors.Join(s.BelongTo(t.Context(), "/a/infra.yml"), s.BelongTo(t.Context(), "/a/infra.yml")); err != nil {
		t.Fatal(err)
	}
	if err := s.BelongTo(t.Context(), "/b/infra.yml"); berth.CodeOf(err) != berth.CodeConflict {
		t.Errorf("another infra.yml: %v", err)
	}
}

func TestAStoreOfANewerVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	s := opened(t, path)
	if _, err := s.write.ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(context.Background(), path); berth.CodeOf(err) != berth.CodeConflict {
		t.Errorf("opened: %v", err)
	}
}

func TestNobodyElseMayReadTheStore(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, filepath.Join(dir, "berth.db"))
	if err := s.Commit(t.Context(), []berth.Change{newLife("a", "here", nil)}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file.Name(), info.Mode(), err)
		}
	}
}

func TestATaskThatMovesIsFoundWhereItIs(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		c := newLife("a", "here", nil)
		c.Life.Share = "ann"
		if err := s.Commit(t.Context(), []berth.Change{c}); err != nil {
			t.Fatal(err)
		}
		c.Life.Task.Infrastructure, c.Life.Share = "there", "climate"
		if err := s.Commit(t.Context(), []berth.Change{{Life: c.Life}}); err != nil {
			t.Fatal(err)
		}
		shares, err := s.Shares(t.Context(), "there")
		if err != nil || len(shares) != 1 || shares["climate"] != 1 {
			t.Errorf("there: %v, %v", shares, err)
		}
		if shares, err := s.Shares(t.Context(), "here"); err != nil || len(shares) != 0 {
			t.Errorf("here: %v, %v", shares, err)
		}
	})
}
