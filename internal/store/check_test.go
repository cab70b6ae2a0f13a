package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

// checked runs a test on a store of each kind, and what looks at all of it.
func checked(t *testing.T, test func(t *testing.T, s *Store, check func() *Check)) {
	path, address := filepath.Join(t.TempDir(), "berth.db"), pgtest.URL(t)
	for name, of := range map[string]struct {
		open  func() *Store
		check func() (*Check, error)
	}{
		"sqlite":   {func() *Store { return opened(t, path) }, func() (*Check, error) { return CheckFile(t.Context(), path) }},
		"postgres": {func() *Store { return openedURL(t, address) }, func() (*Check, error) { return CheckURL(t.Context(), address) }},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, of.open(), func() *Check {
				t.Helper()
				c, err := of.check()
				if err != nil {
					t.Fatal(err)
				}
				return c
			})
		})
	}
}

func TestACheckSaysWhatIsWrong(t *testing.T) {
	checked(t, func(t *testing.T, s *Store, check func() *Check) {
		array, next := arrayOf("x", 5)
		if err := s.AddArray(t.Context(), "key-x", array, next); err != nil {
			t.Fatal(err)
		}
		life := newLife("a", "here", nil)
		if err := s.Commit(t.Context(), []berth.Change{life, newLife("b", "here", nil)}); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), []berth.Change{{Life: life.Life, Events: life.Life.Cancel(t0)}}); err != nil {
			t.Fatal(err)
		}
		if c := check(); !c.OK() || c.Tasks != 7 || c.Events != 9 {
			t.Fatalf("of a store that is well: %+v", c)
		}
		for _, broken := range []struct{ how, says string }{
			{"UPDATE tasks SET state = 'succeeded' WHERE id = 'a'", "task a: its column state says succeeded, and its life cancelled"},
			{"UPDATE tasks SET live = 1 WHERE id = 'b'", "task b: its column live says 1, and its life 2"},
			{"UPDATE tasks SET life = CAST('{\"Task\":' AS " + map[bool]string{false: "BLOB", true: "BYTEA"}[s.Shared()] + ") WHERE id = 'b'", "task b: its life can't be read"},
			{"DELETE FROM arrays", "a task of an array that isn't there: x-00000"},
			{"DELETE FROM tasks WHERE id = 'b'", "events of a task that isn't there: b"},
			{"DELETE FROM events WHERE task_id = 'a'", "a task without events: a"},
			{"INSERT INTO meters (task_id, attempt, meter) VALUES ('gone', 1, CAST('{}' AS " + map[bool]string{false: "BLOB", true: "BYTEA"}[s.Shared()] + "))", "what a task used, and isn't there: gone"},
		} {
			if _, err := s.write.ExecContext(t.Context(), broken.how); err != nil {
				t.Fatal(broken.how, err)
			}
			if c := check(); c.OK() || !strings.Contains(strings.Join(c.Problems, "\n"), broken.says) {
				t.Errorf("%s: %q", broken.how, c.Problems)
			}
		}
	})
}

func TestADamagedFileIsExplained(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	s := opened(t, path)
	array, next := arrayOf("x", 2000)
	if err := s.AddArray(t.Context(), "key-x", array, next); err != nil {
		t.Fatal(err)
	}
	s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte){
		"its middle is overwritten": func(data []byte) { copy(data[len(data)/3:], strings.Repeat("\xff", len(data)/3)) },
		"its head is overwritten":   func(data []byte) { copy(data, "this is no database, and never was any") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "berth.db")
			data := append([]byte{}, whole...)
			damage(data)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := CheckFile(t.Context(), path)
			if err != nil || c.OK() || !strings.Contains(c.Problems[0], "damaged") {
				t.Errorf("check: %+v, %v", c, err)
			}
			s, err := Open(t.Context(), path)
			if err == nil { // it is found out when it is read
				defer s.Close()
				_, err = s.Queued(t.Context(), "here", "ann", nil, 2000)
			}
			if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "berth server check") {
				t.Errorf("used: %v", err)
			}
		})
	}
}

func TestAStoreThatIsNotThereIsNotMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	if _, err := CheckFile(t.Context(), path); berth.CodeOf(err) != berth.CodeNotFound {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made")
	}
	if _, err := CheckURL(t.Context(), pgtest.URL(t)); berth.CodeOf(err) != berth.CodeNotFound {
		t.Error(err)
	}
}
