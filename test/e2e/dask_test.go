//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// debianPython is the Python whose Debian packages have the Dask of daskImage's
// "debian".
const debianPython = "/usr/bin/python3"

var daskImages = map[string]func() (string, error){"debian": buildDask("debian"), "debian13": buildDask("debian13"), "pypi": buildDask("pypi")}

func buildDask(kind string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		cmd := exec.Command("../../hack/dask-image.sh", kind)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	})
}

// daskImage has the node have an image of examples/dask: debian or pypi.
func daskImage(t *testing.T, kind string) (image, archive string) {
	t.Helper()
	out, err := daskImages[kind]()
	if err != nil {
		t.Fatalf("hack/dask-image.sh %s: %v", kind, err)
	}
	image, archive, _ = strings.Cut(out, " ")
	localkube(t, "load", archive)
	return image, archive
}

// createDask makes a cluster and waits for as many workers.
func (s *site) createDask(name, image string, wait int, flags ...string) berth.Cluster {
	s.t.Helper()
	s.must(append([]string{"cluster", "create", "dask", "--name", name, "--software", image, "--pull", "never", "--wait-for", strconv.Itoa(wait), "--wait-timeout", "3m"}, flags...)...)
	return s.cluster(name)
}

func (s *site) cluster(name string) berth.Cluster {
	s.t.Helper()
	var c berth.Cluster
	if err := json.Unmarshal([]byte(s.must("cluster", "get", name, "-o", "json")), &c); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// small are the flags of workers that many fit onto the node of, beside what other
// tests have there: they ask for no CPUs, of which Dask would take all.
var small = []string{"--memory", "300Mi", "--head-memory", "500Mi", "--env", "BERTH_WORKER_THREADS=1"}

// connection is what berth cluster connect -o json prints.
type connection struct {
	Address, CAFile, CertFile, KeyFile, Dashboard string
}

func (s *site) connect(name string, flags ...string) (connection, *running) {
	s.t.Helper()
	r := s.start(append([]string{"cluster", "connect", name, "-o", "json", "--python", debianPython}, flags...)...)
	waitForLines(s.t, r)
	var c connection
	if err := json.Unmarshal([]byte(r.stdout.String()), &c); err != nil {
		s.t.Fatal(err)
	}
	return c, r
}

// waitForLines waits until a tunnel is open.
func waitForLines(t *testing.T, r *running) {
	t.Helper()
	waitFor(t, "the tunnel is open", 60*time.Second, func() bool {
		select {
		case <-r.done:
			t.Fatalf("berth cluster connect ended: exit %d\n%s", r.code, r.stderr.String())
		default:
		}
		return strings.HasSuffix(r.stdout.String(), "\n")
	})
}

// client is how a Python program begins that uses a cluster.
func (c *connection) client() string {
	return fmt.Sprintf(`
import os, sys, time
from dask.distributed import Client, as_completed
from distributed.security import Security
client = Client(%q, security=Security(tls_ca_file=%q, tls_client_cert=%q, tls_client_key=%q, require_encryption=True), timeout=60)
def say(*words):
    print(*words, flush=True)
`, c.Address, c.CAFile, c.CertFile, c.KeyFile)
}

// python runs a program, which has to end well, and returns what it printed.
func (s *site) python(program string) string {
	s.t.Helper()
	p := s.startPython(program)
	return p.end()
}

type pythonProgram struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	done   chan struct{}
	err    error
}

func (s *site) startPython(program string) *pythonProgram {
	s.t.Helper()
	p := &pythonProgram{t: s.t, cmd: exec.Command(debianPython, "-c", program), done: make(chan struct{})}
	p.cmd.Dir = s.dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}, s.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	s.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return p
}

// said waits until the program has printed a text.
func (p *pythonProgram) said(text string) {
	p.t.Helper()
	waitFor(p.t, "the program says "+text, 3*time.Minute, func() bool {
		select {
		case <-p.done:
			if !strings.Contains(p.stdout.String(), text) {
				p.t.Fatalf("it ended: %v\n%s\n%s", p.err, p.stdout.String(), p.stderr.String())
			}
		default:
		}
		return strings.Contains(p.stdout.String(), text)
	})
}

func (p *pythonProgram) end() string {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(4 * time.Minute):
		p.t.Fatalf("the program does not end\n%s\n%s", p.stdout.String(), p.stderr.String())
	}
	if p.err != nil {
		p.t.Fatalf("the program: %v\n%s\n%s", p.err, p.stdout.String(), p.stderr.String())
	}
	return p.stdout.String()
}

// leftovers names what there is in the namespace that a cluster may have made.
func (s *site) leftovers() []string {
	s.t.Helper()
	var left []string
	for _, pod := range s.pods() {
		left = append(left, "pod "+pod.Name)
	}
	secrets, err := admin.CoreV1().Secrets(s.namespace).List(background, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, secret := range secrets.Items {
		if secret.Type != corev1.SecretTypeServiceAccountToken {
			left = append(left, "secret "+secret.Name)
		}
	}
	services, err := admin.CoreV1().Services(s.namespace).List(background, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, service := range services.Items {
		left = append(left, "service "+service.Name)
	}
	return left
}

// workerProcess is the process of a worker's pod on this machine, whose name is
// the host's name in it.
func workerProcess(t *testing.T, pod string) int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		text, _ := os.ReadFile(path) // it may have ended
		if !strings.Contains(string(text), "launch.py\x00worker") {
			continue
		}
		environment, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if strings.Contains(string(environment), "HOSTNAME="+pod+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no process of worker %s is found", pod)
	return 0
}

// clusterPods are the pods of workers, by their tasks, which exist.
func (s *site) workers(c *berth.Cluster) []string {
	var names []string
	for _, pod := range s.pods() {
		if pod.Labels[berth.LabelCluster] == c.ID && pod.Labels[berth.LabelGroup] != berth.HeadGroup && pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
			names = append(names, pod.Name)
		}
	}
	return names
}

// ran counts how often each of the numbered tasks of a program ran, by what they
// printed on the workers.
func (s *site) ran(c *berth.Cluster) map[string]int {
	s.t.Helper()
	times := map[string]int{}
	for line := range strings.Lines(s.must("cluster", "logs", c.ID, "--group", "workers", "--grep", "^ran [0-9]+$")) {
		if _, number, found := strings.Cut(strings.TrimSpace(line), "ran "); found {
			times[number]++
		}
	}
	return times
}

// A cluster computes more than one of its workers has memory for, is scaled while
// it computes without losing or repeating anything, replaces a worker that is
// killed, and leaves nothing.
func TestDaskClusterComputesAndIsScaled(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	image, _ := daskImage(t, "debian")
	began := time.Now()
	c := s.createDask("analysis", image, 2, append([]string{"--workers", "2"}, small...)...)
	t.Logf("a scheduler and 2 workers are usable after %s", time.Since(began).Round(10*time.Millisecond))
	if c.State != berth.ClusterRunning || c.Groups[0].Ready != 2 || c.Head.Versions["distributed"] == "" {
		t.Fatalf("%+v", c)
	}
	conn, tunnel := s.connect("analysis")

	out := s.python(conn.client() + `
import dask.array as da
x = da.arange(100_000_000, chunks=2_000_000)          # 800 MB, of workers with 300 MB
say(x.nbytes, int((x % 7).sum().compute()))
import pandas as pd, dask.dataframe as dd
df = dd.from_pandas(pd.DataFrame({"k": [i % 3 for i in range(30000)], "v": range(30000)}), npartitions=6)
say(df.groupby("k").v.sum().compute().to_dict())
`)
	if !strings.Contains(out, "800000000 299999995") || !strings.Contains(out, "{0: 149985000, 1: 149995000, 2: 150005000}") {
		t.Errorf("it computed %s", out)
	}

	// 2 -> 4 -> 1 while 80 tasks run, one after the other on each worker.
	program := s.startPython(conn.client() + `
def work(i):
    time.sleep(0.5)
    print("ran", i, flush=True)
    return i * i
futures = client.map(work, range(80))
say("begun")
done = 0
for f in as_completed(futures):
    done += 1
    if done in (5, 40):
        say("done", done)
say("sum", sum(client.gather(futures)))
`)
	program.said("done 5\n")
	s.must("cluster", "scale", "analysis", "4", "--wait", "--wait-timeout", "2m")
	program.said("done 40\n")
	s.must("cluster", "scale", "analysis", "1", "--wait", "--wait-timeout", "2m")
	if out := program.end(); !strings.Contains(out, "sum 167480") {
		t.Errorf("it computed %s", out)
	}
	c = s.cluster("analysis")
	if len(c.Groups[0].Lost) != 0 {
		t.Errorf("workers that were too many count as lost: %v", c.Groups[0].Lost)
	}
	times := s.ran(&c)
	for i := range 80 {
		if n := times[strconv.Itoa(i)]; n != 1 {
			t.Errorf("task %d ran %d times", i, n)
		}
	}

	// A worker that is killed is replaced, and what it held is computed again.
	s.must("cluster", "scale", "analysis", "2", "--wait", "--wait-timeout", "2m")
	program = s.startPython(conn.client() + `
def work(i):
    time.sleep(0.3)
    return i
futures = client.map(work, range(1000, 1060))
for n, f in enumerate(as_completed(futures)):
    if n == 10:
        say("some are done")
say("sum", sum(client.gather(futures)))
`)
	program.said("some are done")
	victim := s.workers(&c)[0]
	if err := syscall.Kill(workerProcess(t, victim), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out := program.end(); !strings.Contains(out, "sum 61770") {
		t.Errorf("it computed %s", out)
	}
	waitFor(t, "the worker is replaced and counted", time.Minute, func() bool {
		c = s.cluster("analysis")
		return c.Groups[0].Ready == 2 && len(c.Groups[0].Lost) > 0
	})
	if lost := c.Groups[0].Lost; len(lost) != 1 || lost[string(berth.CauseSignalled)] != 1 {
		t.Errorf("lost: %v", lost)
	}

	s.must("cluster", "delete", "analysis")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if r := tunnel.wait(t.Context()); !strings.Contains(r.stderr, "it was deleted") {
		t.Errorf("the tunnel ended with %d: %s", r.code, r.stderr)
	}
	if _, err := os.Stat(conn.KeyFile); !os.IsNotExist(err) {
		t.Errorf("the key is left: %v", err)
	}
	if c := s.cluster(c.ID); c.State != berth.ClusterStopped || c.FinishedAt == nil || *c.Reason != "it was deleted" {
		t.Errorf("%+v", c)
	}
	if logs := s.must("cluster", "logs", c.ID); !strings.Contains(logs, "Scheduler at") {
		t.Errorf("the head's log: %s", logs)
	}
}
