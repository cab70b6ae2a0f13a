//go:build e2e

package docker

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/berth-run/berth"
)

// A Docker Engine is asked for its stats; the agent of steps counts by itself.
func TestMetrics(t *testing.T) {
	s := newSite(t, shared)
	s.write("task.yaml", "version: 1\nimage: "+busybox+"\nmemory: 64Mi\nsteps:\n- {run: 'i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done'}\n")
	s.must("run", "--name", "steps", "-f", "task.yaml")
	if u := s.byName("steps").Usage; u.Source == nil || *u.Source != berth.UsageFromAgent || *u.CPUSeconds < 0.01 || *u.CPUSeconds > 10 || *u.MemoryPeakBytes < 100<<10 || *u.MemoryPeakBytes > 64<<20 {
		t.Errorf("steps: %s", asJSON(t, u))
	}
	s.must("run", "--name", "command", "--memory", "64Mi", busybox, "sh", "-c", "timeout 18 sh -c 'while :; do :; done' || true")
	task := s.byName("command")
	if u := task.Usage; u.Source == nil || *u.Source != berth.UsageFromDocker || *u.CPUSeconds < 1 || *u.CPUSeconds > 30 || *u.MemoryPeakBytes < 10<<10 || *u.MemoryPeakBytes > 64<<20 {
		t.Errorf("a command: %s", asJSON(t, u))
	}
	var m berth.TaskMetrics
	if err := json.Unmarshal([]byte(s.must("task", "metrics", task.ID, "-o", "json")), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Samples) != 1 || m.CPU.ThrottledSeconds == nil || *m.Memory.Limit != 64<<20 {
		t.Errorf("metrics: %s", asJSON(t, m))
	}
	s.clean()
}

// byName returns the task with a name.
func (s *site) byName(name string) berth.Task {
	s.t.Helper()
	tasks := s.tasks()
	i := slices.IndexFunc(tasks, func(t berth.Task) bool { return t.Name != nil && *t.Name == name })
	if i < 0 {
		s.t.Fatalf("there is no task %s", name)
	}
	return tasks[i]
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
