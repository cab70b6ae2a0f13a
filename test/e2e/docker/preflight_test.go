//go:build e2e

package docker

import (
	"strings"
	"testing"
)

// More memory than the machine has is refused before anything is stored.
func TestPreflightOnAnEngine(t *testing.T) {
	s := newSite(t, shared)
	r := s.berth("run", "--memory", "400Ti", busybox, "true")
	if r.code != 125 || !strings.Contains(r.stderr, "InsufficientMemory") || !strings.Contains(r.stderr, "400Ti") || !strings.Contains(r.stderr, "nothing was made") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if tasks := s.tasks(); len(tasks) != 0 {
		t.Errorf("stored: %+v", tasks)
	}
	if r := s.berth("run", "--no-preflight", "--memory", "400Ti", busybox, "true"); r.code != 125 || len(s.tasks()) != 1 {
		t.Errorf("all the same: exit %d, %d tasks\n%s", r.code, len(s.tasks()), r.stderr)
	}
	s.clean()
}
