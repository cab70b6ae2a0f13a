package mount

import (
	"slices"
	"strings"
	"testing"
)

const mounts = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 22 0:4 net:[4026532219] /run/localkube/a-1/net rw - nsfs nsfs rw
42 22 254:0 /state/with\040blank /run/localkube/a-1/state rw shared:12 master:3 - ext4 /dev/vda rw
43 42 0:50 / /run/localkube/a-1/state/pod\040one rw - tmpfs tmpfs rw
44 22 0:51 / /run/localkube/a-10/net rw - nsfs nsfs rw
a line that says nothing
`

func TestParseReadsPathsTypesAndOptions(t *testing.T) {
	points, err := parse(strings.NewReader(mounts))
	if err != nil || len(points) != 6 {
		t.Fatalf("%v, %v", points, err)
	}
	if got, want := points[1], (Point{Path: "/sys/fs/cgroup/memory", Type: "cgroup", Options: "rw,memory"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := points[4].Path, "/run/localkube/a-1/state/pod one"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBelowDoesNotTakeANeighbourWithALongerName(t *testing.T) {
	points, err := parse(strings.NewReader(mounts))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/run/localkube/a-1/net", "/run/localkube/a-1/state", "/run/localkube/a-1/state/pod one"}
	if got := Below(points, "/run/localkube/a-1"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
