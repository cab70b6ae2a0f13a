//go:build e2e

package docker

import (
	"encoding/json"
	"testing"

	"github.com/berth-run/berth"
)

// A Docker Engine is asked for its stats; the agent of steps counts by itself.
func TestMetrics(t *testing.T) {
	s := newSite(t, shared)
	s.write("task.yaml", "version: 1\nimage: "+busybox+"\nmemory: 64Mi\nsteps:\n- {run: 'i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done'}\n")
	s.must("run", "-f", "task.yaml")
	if u := s.tasks()[0].Usage; u.Source == nil || *u.Source != berth.UsageFromAgent || *u.CPUSeconds < 0.01 || *u.CPUSeconds > 10 || *u.MemoryPeakBytes < 100<<10 || *u.MemoryPeakBytes > 64<<20 {
		t.Errorf("steps: %+v", u)
	}
	s.must("run", "--memory", "64Mi", busybox, "sh", "-c", "timeout 18 sh -c 'while :; do :; done' || true")
	task := s.tasks()[0]
	if u := task.Usage; u.Source == nil || *u.Source != berth.UsageFromDocker || *u.CPUSeconds < 1 || *u.CPUSeconds > 30 || *u.MemoryPeakBytes < 10<<10 || *u.MemoryPeakBytes > 64<<20 {
		t.Errorf("a command: %+v", u)
	}
	var m berth.TaskMetrics
	if err := json.Unmarshal([]byte(s.must("task", "metrics", task.ID, "-o", "json")), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Samples) != 1 || m.CPU.ThrottledSeconds == nil || *m.Memory.Limit != 64<<20 {
		t.Errorf("%d samples, %+v, %+v", len(m.Samples), m.CPU, m.Memory)
	}
	s.clean()
}
