//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A file of 1 GiB that one task wrote, and 10,000 small ones, are what the next
// task reads.
func TestDFSLargeFilesAndManySmallOnes(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t)
	r.format(t, 1, "--trash-days", "0")
	sum := s.must("run", busybox, "sh", "-c", "head -c 1073741824 /dev/urandom | tee /data/big | md5sum")
	if got := s.must("run", busybox, "sh", "-c", "md5sum < /data/big; rm /data/big"); got != sum {
		t.Errorf("the second task read %s, the first one wrote %s", got, sum)
	}
	s.must("run", busybox, "sh", "-c", "mkdir /data/small && cd /data/small && for i in $(seq 10000); do echo $i > $i || exit 1; done")
	if got := s.must("run", busybox, "sh", "-c", "cd /data/small && ls | wc -l && cat $(seq 10000) > /tmp/all && seq 10000 | cmp - /tmp/all && echo same"); got != "10000\nsame\n" {
		t.Errorf("the second task printed %q", got)
	}
}

// What mount_dfs costs, against the same mount made by hand on this machine and
// against tasks without one: make bench runs it, as figures of one run.
func TestDFSMeasured(t *testing.T) {
	if os.Getenv("BERTH_E2E_MEASURE") == "" {
		t.Skip("make bench measures")
	}
	s, r := dfsSite(t)
	r.format(t, 1, "--trash-days", "0")
	r.format(t, 3, "--trash-days", "0")
	s.write("infra.yml", "infrastructures:\n"+entryOf("here", s.namespace, s.kubeconfig, mountDFS(r.url(1)))+entryOf("plain", s.namespace, s.kubeconfig, ""))

	const (
		write = "time dd if=/dev/zero of=%s/big bs=1M count=1024 conv=fsync 2>&1"
		read  = "time dd if=%s/big of=/dev/null bs=1M 2>&1"
	)
	ratios := map[string][]float64{}
	for round := range 5 {
		for _, what := range []struct{ name, script string }{{"write", write}, {"read", read}} {
			var bare, task float64
			for turn := range 2 { // each is the first one in turn: what one deletes goes away while the other writes
				if (round+turn)%2 == 0 {
					bare = r.bare(t, 3, what.script)
				} else {
					task = seconds(t, s.must("run", "--on", "here", busybox, "sh", "-c", fmt.Sprintf(what.script, "/data")))
				}
			}
			ratios[what.name] = append(ratios[what.name], bare/task)
			t.Logf("%s 1 GiB: bare mount %.0f MB/s, task %.0f MB/s", what.name, 1073.7/bare, 1073.7/task)
		}
	}
	for name, of := range ratios {
		slices.Sort(of)
		t.Logf("%s throughput ratio: %.2f (rounds: %.2f)", name, of[2], of)
	}

	var with, without []time.Duration
	for range 9 {
		for _, on := range []string{"plain", "here"} {
			began := time.Now()
			s.must("run", "--on", on, busybox, "true")
			if took := time.Since(began); on == "here" {
				with = append(with, took)
			} else {
				without = append(without, took)
			}
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	t.Logf("a task from berth run to its return: %.2f s without, %.2f s with mount_dfs; %.2f s more (medians of 9)", without[4].Seconds(), with[4].Seconds(), (with[4] - without[4]).Seconds())
}

var realTime = regexp.MustCompile(`real\s+([0-9]+)m ([0-9.]+)s`)

// seconds is what busybox' time says that something took.
func seconds(t *testing.T, said string) float64 {
	t.Helper()
	m := realTime.FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("it said %q", said)
	}
	took, err := time.ParseDuration(m[1] + "m" + m[2] + "s")
	if err != nil {
		t.Fatal(err)
	}
	return took.Seconds()
}

// bare runs dd on a mount of its own of a database's volume, as the sidecar
// would mount it, and says how many seconds it took.
func (r *redis) bare(t *testing.T, number int, script string) float64 {
	t.Helper()
	program, err := juicefs()
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "mount")
	mount := exec.Command(program, "mount", fmt.Sprintf("redis://%s/%d", r.address, number), at, "--no-usage-report", "--no-syslog", "--backup-meta=0", "--cache-size=1024", "--free-space-ratio=0.2", "--cache-dir="+t.TempDir())
	mount.Env = append(os.Environ(), "META_PASSWORD="+redisPassword)
	if err := mount.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = mount.Process.Signal(syscall.SIGTERM)
		_ = mount.Wait()
	}()
	waitFor(t, "the bare mount", 30*time.Second, func() bool {
		text, err := os.ReadFile("/proc/mounts")
		return err == nil && strings.Contains(string(text), " "+at+" fuse")
	})
	out, err := exec.Command("busybox", "sh", "-c", fmt.Sprintf(script, at)).CombinedOutput()
	if err != nil {
		t.Fatalf("dd: %v\n%s", err, out)
	}
	return seconds(t, string(out))
}
