package let

import (
	"bytes"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/internal/agent"
)

// cgroups reads what the agent's own container has used: the agent, the program
// and all that it started, whether they have ended or not.
type cgroups struct {
	root string // where the kernel shows them: /sys/fs/cgroup
	own  string // which of them is ours: /proc/self/cgroup
}

var ownCgroups = cgroups{root: "/sys/fs/cgroup", own: "/proc/self/cgroup"}

// read returns what the kernel tells; what it doesn't tell is nil.
func (g cgroups) read() *agent.Usage {
	if dir := g.unified(); dir != "" {
		return readUnified(dir)
	}
	u := &agent.Usage{}
	if dir := g.v1("cpuacct", "cpu,cpuacct"); dir != "" {
		u.CPUSeconds = seconds(numberIn(dir, "cpuacct.usage"), 1e9)
	}
	if dir := g.v1("cpu", "cpu,cpuacct"); dir != "" {
		u.ThrottledSeconds = seconds(fieldIn(dir, "cpu.stat", "throttled_time"), 1e9)
	}
	if dir := g.v1("memory"); dir != "" {
		u.MemoryPeakBytes = numberIn(dir, "memory.max_usage_in_bytes")
		u.MemoryBytes = workingSet(numberIn(dir, "memory.usage_in_bytes"), fieldIn(dir, "memory.stat", "total_inactive_file"))
	}
	return u
}

// readUnified reads a cgroup of version 2. Kernels before 5.19 have no memory.peak.
func readUnified(dir string) *agent.Usage {
	return &agent.Usage{
		CPUSeconds:       seconds(fieldIn(dir, "cpu.stat", "usage_usec"), 1e6),
		ThrottledSeconds: seconds(fieldIn(dir, "cpu.stat", "throttled_usec"), 1e6),
		MemoryPeakBytes:  numberIn(dir, "memory.peak"),
		MemoryBytes:      workingSet(numberIn(dir, "memory.current"), fieldIn(dir, "memory.stat", "inactive_file")),
	}
}

// unified is the folder of our cgroup of version 2, if that is what counts here.
func (g cgroups) unified() string {
	for _, dir := range []string{path.Join(g.root, g.pathOf("")), g.root} {
		if fieldIn(dir, "cpu.stat", "usage_usec") != nil {
			return dir
		}
	}
	return ""
}

// v1 is the folder of our cgroup of version 1 of a controller, which may be
// mounted under one of several names. A container sees its own at the top, or
// the path to it from that of the node.
func (g cgroups) v1(controller string, others ...string) string {
	for _, name := range append([]string{controller}, others...) {
		top := path.Join(g.root, name)
		for _, dir := range []string{path.Join(top, g.pathOf(controller)), top} {
			if _, err := os.Stat(path.Join(dir, "cgroup.procs")); err == nil {
				return dir
			}
		}
	}
	return ""
}

// pathOf is where a controller's cgroup of ours is; that of version 2 for none.
// A line is ID:CONTROLLER,CONTROLLER:PATH.
func (g cgroups) pathOf(controller string) string {
	data, err := os.ReadFile(g.own)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == controller {
				return path.Clean("/" + parts[2])
			}
		}
	}
	return ""
}

// numberIn reads a file that holds one number; nil when there is none.
func numberIn(dir, name string) *int64 {
	data, err := os.ReadFile(path.Join(dir, name))
	if err != nil {
		return nil
	}
	return count(bytes.TrimSpace(data))
}

// fieldIn reads a number out of a file of lines NAME NUMBER.
func fieldIn(dir, name, key string) *int64 {
	data, err := os.ReadFile(path.Join(dir, name))
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(data) {
		if value, ok := bytes.CutPrefix(line, []byte(key+" ")); ok {
			return count(bytes.TrimSpace(value))
		}
	}
	return nil
}

func count(text []byte) *int64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

func seconds(n *int64, perSecond float64) *float64 {
	if n == nil {
		return nil
	}
	s := float64(*n) / perSecond
	return &s
}

// workingSet is memory that can't be dropped at any time, as metrics-server
// counts it. Where the cache is unknown all of it counts.
func workingSet(used, cache *int64) *int64 {
	if used == nil || cache == nil {
		return used
	}
	n := max(0, *used-*cache)
	return &n
}

// total is what was used in all, at the end. Where the kernel shows no cgroup,
// it is what the agent and all programs that have ended used by its own count,
// and as peak that of the largest of them.
func (g cgroups) total() *agent.Usage {
	u := g.read()
	u.MemoryBytes = nil
	var own, children unix.Rusage
	if errors.Join(unix.Getrusage(unix.RUSAGE_SELF, &own), unix.Getrusage(unix.RUSAGE_CHILDREN, &children)) != nil {
		return u
	}
	if u.CPUSeconds == nil {
		var s float64
		for _, t := range []unix.Timeval{own.Utime, own.Stime, children.Utime, children.Stime} {
			s += float64(t.Nano()) / 1e9
		}
		u.CPUSeconds = &s
	}
	if u.MemoryPeakBytes == nil {
		peak := max(own.Maxrss, children.Maxrss) << 10 // of KiB
		u.MemoryPeakBytes = &peak
	}
	return u
}
