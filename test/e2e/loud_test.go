//go:build e2e

package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
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
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: "loud", Mode: 0o755, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	made, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := made.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.Architecture, file.OS, file.Config = "amd64", "linux", v1.Config{Entrypoint: []string{"/loud"}}
	if made, err = mutate.ConfigFile(made, file); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "loud.tar")
	if err := tarball.WriteToFile(archive, name.MustParseReference(image), made); err != nil {
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

// Twenty programs write 10,000 lines in a second each, so much that the kubelet
// begins new files for each of them at least twice. Nothing is doubled, nothing
// is lost, and the memory of the process that follows them all does not grow.
func TestLogsOfTwentyLoudPods(t *testing.T) {
	o := newOffice(t, false, "")
	image := loudImage(t)
	pods, lines, rate := number(t, "BERTH_E2E_LOUD_PODS", 20), number(t, "BERTH_E2E_LOUD_LINES", 300_000), number(t, "BERTH_E2E_LOUD_RATE", 10_000)
	before := usageOf(t, o.server.Process.Pid)
	ids := make([]string, pods)
	var submitting sync.WaitGroup
	for i := range ids {
		submitting.Go(func() { ids[i] = o.detach(image, strconv.Itoa(lines), strconv.Itoa(rate)) })
	}
	submitting.Wait()
	ended := make(chan struct{})
	var peak usage
	go func() {
		defer close(ended)
		for _, id := range ids {
			o.must("task", "wait", id)
		}
	}()
	for sampling := true; sampling; {
		select {
		case <-ended:
			sampling = false
		case <-time.After(time.Second):
		}
		now := usageOf(t, o.server.Process.Pid)
		peak.resident, peak.processor = max(peak.resident, now.resident), now.processor
	}
	t.Logf("%d lines: berth took %.1f s of a processor; its memory went from %d to at most %d MiB", pods*lines, (peak.processor - before.processor).Seconds(), before.resident>>20, peak.resident>>20)
	if grown := peak.resident - before.resident; grown > 150<<20 {
		t.Errorf("its memory grew by %d MiB", grown>>20)
	}
	for _, id := range ids {
		checkNumbered(t, o.site, id, lines)
	}
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

// checkNumbered reads the log of a program that numbers its lines from 0 on,
// and says what is missing, doubled, or marked as a gap.
func checkNumbered(t *testing.T, s *site, id string, lines int) {
	t.Helper()
	cmd := s.command(nil, "task", "logs", "-t", id)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make([]uint8, lines)
	var first, last time.Time
	doubled, strange := 0, 0
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		stamp, content, _ := strings.Cut(scanner.Text(), " ")
		n, err := strconv.Atoi(content)
		if err != nil || n >= lines || len(content) != 99 {
			strange++
			t.Logf("%.200q", content)
			continue
		}
		if seen[n]++; seen[n] > 1 {
			doubled++
		}
		if last, err = time.Parse(time.RFC3339Nano, stamp); err == nil && first.IsZero() {
			first = last
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	missing, at := 0, -1
	for n, count := range seen {
		if count == 0 {
			if missing++; at < 0 {
				at = n
			}
		}
	}
	task := s.task(id)
	t.Logf("%s: %d lines in %.1f s (%.0f a second), state %s", id, lines, last.Sub(first).Seconds(), float64(lines)/last.Sub(first).Seconds(), task.State)
	if doubled > 0 || missing > 0 || strange > 0 || stderr.Len() > 0 || task.State != berth.StateSucceeded {
		t.Errorf("%s: %d doubled, %d missing (the first is %d), %d that it did not write\n%s", id, doubled, missing, at, strange, stderr.String())
	}
}
