//go:build e2e

package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/internal/s3test"
)

// A server's machine is lost with all that was on it. What its tasks printed,
// and the packages that it took, are in the bucket: another server shows them,
// and goes on with the log of a task that still runs.
func TestLogsAndPackagesOutliveTheMachineOfTheirServer(t *testing.T) {
	f := newFleet(t)
	bucket := s3test.New(t)
	f.storage = bucket.URL("berth")
	for name, value := range s3test.Environment() {
		f.one.env = append(f.one.env, name+"="+value)
	}
	a := f.serve("a")
	waitFor(t, "one server holds both", 20*time.Second, func() bool { h := a.holders(a); return h["one"] == 1 && h["two"] == 1 })
	ended := strings.TrimSpace(a.must("run", "--detach", "--on", "one", busybox, "sh", "-c", "seq 1 20000; sleep 3"))
	if r := a.berth("task", "wait", ended); r.code != 0 {
		t.Fatalf("exit %d, %s", r.code, r.stderr)
	}
	whole := a.must("task", "logs", "-f", ended)
	if lines := strings.Count(whole, "\n"); lines != 20000 {
		t.Fatalf("its log has %d lines", lines)
	}
	runs := strings.TrimSpace(a.must("run", "--detach", "--on", "two", busybox, "sh", "-c", "i=0; while [ $i -lt 60 ]; do echo tick $i; i=$((i+1)); sleep 1; done"))
	example, err := filepath.Abs("../../examples/arithmetic-bash")
	if err != nil {
		t.Fatal(err)
	}
	built := strings.TrimSpace(a.must("package", "build", example, "--base", base(t)))
	waitFor(t, "part of the log of the task that runs is stored", 30*time.Second, func() bool { return strings.Contains(a.must("task", "logs", runs), "tick 12") })

	a.kill()
	if err := os.RemoveAll(a.data); err != nil {
		t.Fatal(err)
	}
	b := f.serve("b")
	waitFor(t, "the other holds both", 30*time.Second, func() bool { h := b.holders(b); return h["one"] == 1 && h["two"] == 1 })
	if got := b.must("task", "logs", ended); got != whole {
		t.Errorf("the log of the ended task has %d bytes, not %d", len(got), len(whole))
	}
	if got := b.must("task", "logs", "--tail", "2", ended); got != "19999\n20000\n" {
		t.Errorf("its tail is %q", got)
	}
	if got := b.must("package", "list"); !strings.Contains(got, "arithmetic-bash") {
		t.Errorf("the packages are %s", got)
	}
	if got := b.must("package", "inspect", "arithmetic-bash@1.0.0", "-o", "json"); !strings.Contains(got, built[strings.LastIndex(built, "sha256:"):]) {
		t.Errorf("the package is %s, not %s", got, built)
	}
	archive := filepath.Join(f.one.dir, "arithmetic.tar")
	b.must("package", "pull", "arithmetic-bash@1.0.0", "--file", archive)
	if info, err := os.Stat(archive); err != nil || info.Size() == 0 {
		t.Errorf("its image: %v", err)
	}
	if r := b.berth("task", "wait", runs); r.code != 0 {
		t.Fatalf("exit %d, %s", r.code, r.stderr)
	}
	var want strings.Builder
	for i := range 60 {
		want.WriteString("tick " + strconv.Itoa(i) + "\n")
	}
	if got := b.must("task", "logs", "-f", runs); got != want.String() {
		t.Errorf("the log of the task that went on:\n%s", got)
	}
	waitFor(t, "nothing of complete logs is left on the machine", 20*time.Second, func() bool {
		left := 0
		err := filepath.WalkDir(filepath.Join(b.data, "logs"), func(path string, _ fs.DirEntry, err error) error {
			if strings.Contains(path, ".log") {
				left++
			}
			return err
		})
		return left == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
	})
	for _, m := range []*member{a, b} {
		if strings.Contains(m.log.String(), s3test.SecretKey) {
			t.Error("the secret key is in a log")
		}
	}
}
