//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth"
)

// loudImage puts an image onto the node whose one program, /loud, writes
// numbered lines at a pace, and returns its name.
func loudImage(t *testing.T) string {
	t.Helper()
	const image = "docker.io/library/berth-test-loud:1"
	dir := t.TempDir()
	program := filepath.Join(dir, "loud")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./testdata/loud")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	archive := filepath.Join(dir, "loud.tar")
	if err := tarball.WriteToFile(archive, name.MustParseReference(image), programImage(t, program, runtime.GOARCH, entrypoint(program))); err != nil {
		t.Fatal(err)
	}
	localkube(t, "load", archive)
	return image
}

// localkube runs a verb on the tests' cluster.
func localkube(t *testing.T, args ...string) {
	t.Helper()
	state := filepath.Dir(statePath(t, "host-ip"))
	binary, err := filepath.Abs("../../bin/localkube")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append(args, "--name", filepath.Base(state))...)
	cmd.Dir = filepath.Dir(filepath.Dir(state))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("localkube %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Twenty programs write so much that the kubelet begins new files for each of
// them at least twice, at about half of what a machine of two cores that carries
// all of a cluster passes on: a kubelet and an API server take 20 microseconds of a
// processor for a line. Nothing is doubled, nothing is lost, there is no gap, and
// the memory of the process that follows them all does not grow.
// BERTH_E2E_LOUD_RATE=10000 is for larger machines.
func TestLogsOfTwentyLoudPods(t *testing.T) {
	o := newOffice(t, false, "")
	lines, rate := number(t, "BERTH_E2E_LOUD_LINES", 150_000), number(t, "BERTH_E2E_LOUD_RATE", 1_100)
	for _, id := range o.loud(number(t, "BERTH_E2E_LOUD_PODS", 20), lines, rate) {
		if gaps := checkNumbered(t, o.site, id, lines); gaps > 0 {
			t.Errorf("%s: %d gaps", id, gaps)
		}
	}
}

// Where programs write more than a cluster passes on, the kubelet throws files
// away that nobody could read. Nothing of that goes unsaid.
func TestLogsThatAClusterCannotPassOnHaveGaps(t *testing.T) {
	o := newOffice(t, false, "")
	const lines = 300_000
	for _, id := range o.loud(20, lines, 10_000) {
		checkNumbered(t, o.site, id, lines)
	}
}

// loud runs so many loud programs at once, to their ends, and says what that
// took of the server.
func (o *office) loud(pods, lines, rate int) []string {
	t := o.t
	t.Helper()
	image := loudImage(t)
	before := usageOf(t, o.server.Process.Pid)
	ids := make([]string, pods)
	var submitting sync.WaitGroup
	for i := range ids {
		submitting.Go(func() { ids[i] = o.detach(image, strconv.Itoa(lines), strconv.Itoa(rate)) })
	}
	submitting.Wait()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, id := range ids {
			o.berth("task", "wait", id)
			o.berth("task", "logs", "-f", "--tail", "1", id) // until all of it is stored
		}
	}()
	var peak usage
	for sampling := true; sampling; {
		select {
		case <-ended:
			sampling = false
		case <-time.After(time.Second):
		}
		now := usageOf(t, o.server.Process.Pid)
		peak.resident, peak.processor = max(peak.resident, now.resident), now.processor
	}
	t.Logf("%d lines of %d programs: berth took %.1f s of a processor; its memory went from %d to at most %d MiB", pods*lines, pods, (peak.processor - before.processor).Seconds(), before.resident>>20, peak.resident>>20)
	if grown := peak.resident - before.resident; grown > 100<<20 {
		t.Errorf("its memory grew by %d MiB", grown>>20)
	}
	return ids
}

// usage is what a process takes of the machine.
type usage struct {
	processor time.Duration // since it began
	resident  int64         // bytes at the moment
}

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before may have spaces
	fields := strings.Fields(rest)
	var ticks, pages int64
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	if pages, err = strconv.ParseInt(fields[21], 10, 64); err != nil {
		t.Fatal(err)
	}
	return usage{time.Duration(ticks) * time.Second / 100, pages * int64(os.Getpagesize())}
}

// number is a setting of the machine that the test runs on.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// checkNumbered reads the log of a program that numbers its lines from 0 on.
// Each is there once and in order, and where some are missing there is a gap.
// It returns how many gaps there are.
func checkNumbered(t *testing.T, s *site, id string, lines int) int {
	t.Helper()
	cmd := s.command(nil, "task", "logs", "-f", "-t", id)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in // so gaps are where they are
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	var first, last time.Time
	seen := make([]bool, lines)
	expected, missing, unsaid, strange, gaps := 0, 0, 0, 0, 0
	gap, torn := false, false
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		text := scanner.Text()
		if strings.HasPrefix(text, "berth: ") {
			gap = true
			gaps++
			t.Logf("%s: %s", id, text)
			continue
		}
		stamp, content, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(content)
		if err != nil || len(content) != 99 || n >= lines {
			torn = true // the kubelet puts what is left of two files together
			continue
		}
		if seen[n] {
			t.Errorf("%s: line %d comes again", id, n)
		}
		seen[n] = true
		if n < expected {
			missing-- // late: the last of a file and the first of the next one aren't in order
			continue
		}
		missing += n - expected
		if !gap {
			if n > expected {
				t.Logf("%s: lines %d to %d are not there, between %s and %s", id, expected, n-1, last.Format(time.RFC3339Nano), stamp)
			}
			unsaid += n - expected
		}
		if torn && !gap {
			strange++
		}
		expected, gap, torn = n+1, false, false
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			if last = at; first.IsZero() {
				first = at
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v", id, err)
	}
	missing += lines - expected
	if !gap {
		if lines > expected {
			t.Logf("%s: lines %d to %d, the last ones, are not there, behind %s", id, expected, lines-1, last.Format(time.RFC3339Nano))
		}
		unsaid += lines - expected
	}
	task := s.task(id)
	t.Logf("%s: %d of %d lines in %.1f s, %d gaps, %s; by its status the program ended %.1f s after the last line", id, lines-missing, lines, last.Sub(first).Seconds(), gaps, task.State, task.FinishedAt.Sub(last).Seconds())
	if unsaid > 0 || strange > 0 || task.State != berth.StateSucceeded {
		t.Errorf("%s: %d lines are missing without a word, %d were not written so", id, unsaid, strange)
	}
	return gaps
}
