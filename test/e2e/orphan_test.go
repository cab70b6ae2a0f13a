//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A store that was restored from a copy finds what ran since the copy was made:
// outcome and log of it are kept.
func TestARestoredStoreFindsWhatItDidNotKnow(t *testing.T) {
	s := newSite(t)
	known := s.detach(busybox, "true")
	s.berth("task", "wait", known)
	db, saved := filepath.Join(s.dir, ".berth", "berth.db"), filepath.Join(s.dir, "saved.db")
	data, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(saved, data, 0o600); err != nil {
		t.Fatal(err)
	}
	id := s.detach("--label", "team=x", busybox, "sh", "-c", "echo from before; sleep 4; exit 6")
	waitFor(t, "it runs", 60*time.Second, func() bool { return s.task(id).StartedAt != nil })
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.RemoveAll(db + suffix); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, ".berth", "logs", id)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(saved, db); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is found", 30*time.Second, func() bool { return len(s.tasks()) == 2 })
	if r := s.berth("task", "wait", id); r.code != 6 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if task := s.task(id); !task.Orphan || !strings.Contains(task.Image, "busybox") {
		t.Errorf("it is %+v", task)
	}
	waitFor(t, "its log is stored", 30*time.Second, func() bool { return s.printed(id) == "from before\n" })
	if pods := s.pods(); len(pods) != 1 {
		t.Errorf("%d pods are left", len(pods))
	}
}
