package let

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/internal/agent"
)

func of[T any](v T) *T { return &v }

func TestWhatACgroupTells(t *testing.T) {
	for name, want := range map[string]agent.Usage{
		"v1":        {CPUSeconds: of(0.035257814), ThrottledSeconds: of(2.5), MemoryBytes: of(int64(1500000)), MemoryPeakBytes: of(int64(3825664))},
		"v1-node":   {CPUSeconds: of(2.0), ThrottledSeconds: of(0.0), MemoryBytes: of(int64(4096)), MemoryPeakBytes: of(int64(8192))}, // the container sees the node's cgroups
		"v2":        {CPUSeconds: of(1.5), ThrottledSeconds: of(0.25), MemoryBytes: of(int64(8 << 20)), MemoryPeakBytes: of(int64(20 << 20))},
		"v2-old":    {CPUSeconds: of(1.5), ThrottledSeconds: of(0.25), MemoryBytes: of(int64(8 << 20))}, // a kernel without memory.peak
		"v2-node":   {CPUSeconds: of(7.0), MemoryBytes: of(int64(0))},
		"malformed": {},
		"none":      {},
	} {
		g := cgroups{root: filepath.Join("testdata/cgroup", name), own: filepath.Join("testdata/cgroup", name+".own")}
		if diff := cmp.Diff(want, *g.read()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A kernel that shows no cgroup still counts what processes used that ended.
func TestTotalWithoutACgroup(t *testing.T) {
	if err := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Fatal(err)
	}
	u := cgroups{root: "testdata/cgroup/none", own: "testdata/cgroup/none.own"}.total()
	if u.CPUSeconds == nil || *u.CPUSeconds <= 0 || u.MemoryPeakBytes == nil || *u.MemoryPeakBytes < 100<<10 || u.MemoryBytes != nil || u.ThrottledSeconds != nil {
		t.Errorf("%+v", u)
	}
}

func TestTotalIsTheCgroupsWhereThereIsOne(t *testing.T) {
	u := cgroups{root: "testdata/cgroup/v2", own: "testdata/cgroup/v2.own"}.total()
	if *u.CPUSeconds != 1.5 || *u.MemoryPeakBytes != 20<<20 || u.MemoryBytes != nil {
		t.Errorf("%+v", u)
	}
	u = cgroups{root: "testdata/cgroup/v2-old", own: "testdata/cgroup/v2-old.own"}.total()
	if *u.CPUSeconds != 1.5 || u.MemoryPeakBytes == nil || *u.MemoryPeakBytes == 20<<20 {
		t.Errorf("without memory.peak: %+v", u)
	}
}
