package cgroup

import (
	"fmt"
	"testing"

	"github.com/berth-run/berth/tools/localkube/internal/mount"
)

func TestHierarchiesOfEachKindOfMachine(t *testing.T) {
	for name, test := range map[string]struct {
		points []mount.Point
		want   string
	}{
		"version 2, as Debian 12 starts": {
			[]mount.Point{{Path: "/", Type: "ext4"}, {Path: "/sys/fs/cgroup", Type: "cgroup2", Options: "rw,nsdelegate"}},
			"[{/sys/fs/cgroup 2 false}]",
		},
		"both": {
			[]mount.Point{
				{Path: "/sys/fs/cgroup", Type: "tmpfs"}, {Path: "/sys/fs/cgroup/cpuset", Type: "cgroup", Options: "rw,cpuset"},
				{Path: "/sys/fs/cgroup/cpu,cpuacct", Type: "cgroup", Options: "rw,cpu,cpuacct"}, {Path: "/sys/fs/cgroup/unified", Type: "cgroup2"},
			},
			"[{/sys/fs/cgroup/cpuset 1 true} {/sys/fs/cgroup/cpu,cpuacct 1 false} {/sys/fs/cgroup/unified 2 false}]",
		},
		"a container's copy": {
			[]mount.Point{{Path: "/sys/fs/cgroup", Type: "cgroup2"}, {Path: "/var/lib/machine/sys/fs/cgroup", Type: "cgroup2"}},
			"[{/sys/fs/cgroup 2 false}]",
		},
	} {
		if got := fmt.Sprint(Hierarchies(test.points)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
