//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

// fleet is several berth servers on one real PostgreSQL server, with two
// namespaces of a real cluster: the infrastructures one and two.
type fleet struct {
	t        *testing.T
	one, two *site
	database *pgtest.Server
	address  string
	storage  string                // as --storage has it
	ledgers  map[string]*podLedger // by infrastructure
}

func newFleet(t *testing.T, profiles ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, one: newSite(t, profiles...), two: newSite(t, profiles...), database: pgtest.New(t)}
	f.address = f.database.Database(t)
	f.storage = filepath.Join(f.one.dir, "storage")
	f.one.write("infra.yml", fmt.Sprintf(`infrastructures:
  one: {kind: kube, namespace: %s, credentials: {mechanism: config, path: %s}}
  two: {kind: kube, namespace: %s, credentials: {mechanism: config, path: %s}}
`, f.one.namespace, f.one.kubeconfig, f.two.namespace, f.two.kubeconfig))
	f.ledgers = map[string]*podLedger{"one": f.one.watchPods(), "two": f.two.watchPods()}
	return f
}

// member is one berth server; commands reach it as its machine's user.
type member struct {
	fleet *fleet
	data  string
	cmd   *exec.Cmd
	log   lockedBuffer
}

// serve starts a server with a data directory of its own.
func (f *fleet) serve(name string) *member {
	f.t.Helper()
	m := &member{fleet: f, data: filepath.Join(f.one.dir, name)}
	m.start()
	f.t.Cleanup(func() {
		if m.cmd != nil {
			_ = m.cmd.Process.Signal(syscall.SIGCONT)
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait()
		}
		if f.t.Failed() {
			f.t.Logf("%s:\n%s", name, m.log.String())
		}
	})
	return m
}

func (m *member) start() {
	f := m.fleet
	f.t.Helper()
	// The password is in the environment, and in no command line.
	m.cmd = f.one.command([]string{"DB_PASSWORD=" + pgtest.Password}, "server", "--listen", "127.0.0.1:0", "--data", m.data,
		"--database", strings.Replace(f.address, pgtest.Password, "${env:DB_PASSWORD}", 1), "--storage", f.storage)
	m.cmd.Stderr = &m.log
	if err := m.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	waitFor(f.t, "a server serves", 30*time.Second, func() bool { return strings.Contains(m.log.String(), "berth: serving") })
}

func (m *member) signal(s syscall.Signal) {
	m.fleet.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.fleet.t.Fatal(err)
	}
}

// kill ends it as a loss of power does.
func (m *member) kill() {
	m.signal(syscall.SIGKILL)
	_ = m.cmd.Wait()
	m.cmd = nil
}

func (m *member) berth(args ...string) result {
	m.fleet.t.Helper()
	return m.fleet.one.berth(append(args[:1:1], append([]string{"--data", m.data}, args[1:]...)...)...)
}

func (m *member) must(args ...string) string {
	m.fleet.t.Helper()
	r := m.berth(args...)
	if r.code != 0 {
		m.fleet.t.Fatalf("berth %s: exit %d\n%s\n%s", strings.Join(args, " "), r.code, r.stderr, m.log.String())
	}
	return r.stdout
}

// holders tells who holds what, as one member has it: by infrastructure, the
// number of the server in a list, from 1 on; 0 for nobody.
func (m *member) holders(servers ...*member) map[string]int {
	m.fleet.t.Helper()
	var list []berth.Infrastructure
	if err := json.Unmarshal([]byte(m.must("infra", "list", "-o", "json")), &list); err != nil {
		m.fleet.t.Fatal(err)
	}
	out := map[string]int{}
	for _, i := range list {
		out[i.Name] = 0
		for n, server := range servers {
			if i.Holder != nil && strings.Contains(server.log.String(), *i.Holder+";") && i.State == berth.InfraReady {
				out[i.Name] = n + 1
			}
		}
	}
	return out
}

// ranOnce checks a task's end by what the cluster and the events say.
func (m *member) ranOnce(infrastructure, id string) {
	t := m.fleet.t
	t.Helper()
	if n := m.fleet.ledgers[infrastructure].count(id); n != 1 {
		t.Errorf("%d pods of task %s existed", n, id)
	}
	var events []berth.Event
	if err := json.Unmarshal([]byte(m.must("task", "events", id, "-o", "json")), &events); err != nil {
		t.Fatal(err)
	}
	seen := map[berth.EventType]int{}
	for _, e := range events {
		seen[e.Type]++
	}
	for _, once := range []berth.EventType{berth.EventQueued, berth.EventAdmitted, berth.EventCreated, berth.EventStarted, berth.EventFinished} {
		if seen[once] != 1 {
			t.Errorf("task %s has %d events %s: %v", id, seen[once], once, seen)
		}
	}
}

func TestServersShareADatabase(t *testing.T) {
	f := newFleet(t)
	a := f.serve("a")
	waitFor(t, "one server holds both", 20*time.Second, func() bool { h := a.holders(a); return h["one"] == 1 && h["two"] == 1 })
	running := strings.TrimSpace(a.must("run", "--detach", "--on", "one", busybox, "sh", "-c", "echo begun; sleep 15; echo done"))
	also := strings.TrimSpace(a.must("run", "--detach", "--on", "two", busybox, "sh", "-c", "echo begun; sleep 15; echo done"))

	b := f.serve("b")
	var h map[string]int
	waitFor(t, "two servers hold one each", 20*time.Second, func() bool {
		h = b.holders(a, b)
		return h["one"]+h["two"] == 3 && h["one"] != 0 && h["two"] != 0
	})
	if fromA := a.holders(a, b); fromA["one"] != h["one"] || fromA["two"] != h["two"] {
		t.Errorf("a says %v, b says %v", fromA, h)
	}
	// Whoever is asked, it is done where the lease is.
	for n, m := range []*member{a, b} {
		for _, on := range []string{"one", "two"} {
			r := m.berth("run", "--on", on, busybox, "sh", "-c", "echo said; exit 3")
			if r.code != 3 || r.stdout != "said\n" {
				t.Errorf("server %d, %s: exit %d, %q, %s", n+1, on, r.code, r.stdout, r.stderr)
			}
		}
	}
	waits := strings.TrimSpace(b.must("run", "--detach", "--on", "one", busybox, "sleep", "600"))
	if r := a.berth("task", "cancel", waits); r.code != 0 {
		t.Errorf("cancel: %s", r.stderr)
	}
	if r := b.berth("task", "wait", waits); r.code != 130 {
		t.Errorf("cancelled: exit %d, %s", r.code, r.stderr)
	}
	// What moved while it ran goes on.
	for on, id := range map[string]string{"one": running, "two": also} {
		if r := b.berth("task", "wait", id); r.code != 0 {
			t.Errorf("a task that moved: exit %d, %s", r.code, r.stderr)
		}
		if log := a.must("task", "logs", id); log != "begun\ndone\n" {
			t.Errorf("its log is %q", log)
		}
		b.ranOnce(on, id)
	}

	// One that ends well leaves at once.
	began := time.Now()
	a.signal(syscall.SIGTERM)
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	a.cmd = nil
	waitFor(t, "the other holds both", 10*time.Second, func() bool { h := b.holders(b); return h["one"] == 1 && h["two"] == 1 })
	t.Logf("%s after one left", time.Since(began).Round(100*time.Millisecond))
	for _, m := range []*member{a, b} {
		if strings.Contains(m.log.String(), pgtest.Password) {
			t.Error("the password is in a log")
		}
	}
}

func TestAServerThatIsKilledIsReplacedWithin20Seconds(t *testing.T) {
	f := newFleet(t)
	a, b := f.serve("a"), f.serve("b")
	var h map[string]int
	waitFor(t, "two servers hold one each", 30*time.Second, func() bool { h = b.holders(a, b); return h["one"]+h["two"] == 3 && h["one"] != 0 && h["two"] != 0 })
	ids := map[string]string{}
	for _, on := range []string{"one", "two"} {
		for range 5 {
			ids[strings.TrimSpace(b.must("run", "--detach", "--on", on, busybox, "sh", "-c", "echo begun; sleep 10; echo done"))] = on
		}
	}
	of := "one"
	if h["two"] == 1 {
		of = "two"
	}
	waiting := f.one.command(nil, "run", "--data", b.data, "--on", of, busybox, "sh", "-c", "sleep 8; echo done; exit 4")
	var out lockedBuffer
	waiting.Stdout, waiting.Stderr = &out, &out
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it runs", 20*time.Second, func() bool {
		return strings.Contains(b.must("task", "list", "--limit", "100"), "running")
	})
	began := time.Now()
	a.kill()
	waitFor(t, "the other holds both", 20*time.Second, func() bool {
		h := b.holders(b)
		return h["one"] == 1 && h["two"] == 1
	})
	t.Logf("%s after one was killed", time.Since(began).Round(100*time.Millisecond))
	for id, on := range ids {
		if r := b.berth("task", "wait", id); r.code != 0 {
			t.Errorf("task %s on %s: exit %d, %s", id, on, r.code, r.stderr)
		}
		b.ranOnce(on, id)
	}
	if err := waiting.Wait(); waiting.ProcessState.ExitCode() != 4 || !strings.Contains(out.String(), "done") {
		t.Errorf("who waited through the death: %v, %s", err, out.String())
	}

	// Started again on its directory it needs not wait for its own lease.
	a.start()
	waitFor(t, "both hold one each", 20*time.Second, func() bool { h := b.holders(a, b); return h["one"]+h["two"] == 3 && h["one"] != 0 && h["two"] != 0 })
}

// A holder that is stopped in the middle of its work and goes on after its
// leases were taken creates nothing and stores nothing.
func TestAHolderThatSleptThroughItsLeaseDoesNothing(t *testing.T) {
	f := newFleet(t)
	a := f.serve("a")
	waitFor(t, "one server holds both", 20*time.Second, func() bool { h := a.holders(a); return h["one"] == 1 && h["two"] == 1 })
	// Submissions under way: some are stored, some have a pod, some neither.
	var submitting []*exec.Cmd
	said := make([]bytes.Buffer, 10)
	for i := range said {
		cmd := f.one.command(nil, "run", "--detach", "--data", a.data, "--on", "one", busybox, "sh", "-c", "echo begun; sleep 3; echo done")
		cmd.Stderr = &said[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		submitting = append(submitting, cmd)
	}
	waitFor(t, "some are stored", 20*time.Second, func() bool { return len(f.one.pods()) > 2 })
	a.signal(syscall.SIGSTOP)
	b := f.serve("b")
	waitFor(t, "the other holds both", 25*time.Second, func() bool { h := b.holders(b); return h["one"] == 1 && h["two"] == 1 })
	var tasks []berth.Task
	if err := json.Unmarshal([]byte(b.must("task", "list", "-o", "json")), &tasks); err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if r := b.berth("task", "wait", task.ID); r.code != 0 {
			t.Errorf("task %s: exit %d, %s", task.ID, r.code, r.stderr)
		}
	}
	a.signal(syscall.SIGCONT)
	waitFor(t, "it knows that it slept", 20*time.Second, func() bool { return strings.Contains(a.log.String(), "another server's by now") })
	for i, cmd := range submitting {
		if err := cmd.Wait(); err != nil {
			t.Errorf("a submission through the sleep: %v, %s", err, said[i].String())
		}
	}
	waitFor(t, "they share again", 30*time.Second, func() bool { h := b.holders(a, b); return h["one"]+h["two"] == 3 && h["one"] != 0 && h["two"] != 0 })
	if err := json.Unmarshal([]byte(b.must("task", "list", "-o", "json")), &tasks); err != nil {
		t.Fatal(err)
	}
	if len(tasks) != len(submitting) {
		t.Errorf("%d tasks of %d submissions", len(tasks), len(submitting))
	}
	for _, task := range tasks {
		if r := b.berth("task", "wait", task.ID); r.code != 0 {
			t.Errorf("task %s: exit %d, %s", task.ID, r.code, r.stderr)
		}
		b.ranOnce("one", task.ID)
		if log := b.must("task", "logs", task.ID); log != "begun\ndone\n" {
			t.Errorf("the log of %s is %q", task.ID, log)
		}
	}
}

// While the database is away new tasks are refused, and what happens to the
// others is stored when it is back.
func TestADatabaseThatCrashesLosesNothing(t *testing.T) {
	f := newFleet(t)
	a := f.serve("a")
	waitFor(t, "one server holds both", 20*time.Second, func() bool { h := a.holders(a); return h["one"] == 1 && h["two"] == 1 })
	ids := map[string]string{}
	for _, on := range []string{"one", "two"} {
		for range 5 {
			ids[strings.TrimSpace(a.must("run", "--detach", "--on", on, busybox, "sh", "-c", "echo begun; sleep 8; echo done"))] = on
		}
	}
	waitFor(t, "they run", 30*time.Second, func() bool {
		return strings.Count(a.must("task", "list", "--limit", "100"), "running") == len(ids)
	})
	f.database.Stop(syscall.SIGQUIT)
	if r := a.berth("run", "--on", "one", busybox, "true"); r.code != 125 || !strings.Contains(r.stderr, "can't be reached") || strings.Contains(r.stderr, pgtest.Password) {
		t.Errorf("without a database: exit %d, %s", r.code, r.stderr)
	}
	waitFor(t, "all have ended in the cluster", 60*time.Second, func() bool {
		running := 0
		for _, s := range []*site{f.one, f.two} {
			for _, pod := range s.pods() {
				if pod.Status.Phase == corev1.PodRunning {
					running++
				}
			}
		}
		return running == 0
	})
	if err := f.database.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it answers again", 30*time.Second, func() bool { return a.berth("task", "list").code == 0 })
	for id, on := range ids {
		if r := a.berth("task", "wait", id); r.code != 0 {
			t.Errorf("task %s on %s: exit %d, %s", id, on, r.code, r.stderr)
		}
		a.ranOnce(on, id)
		if log := a.must("task", "logs", id); log != "begun\ndone\n" {
			t.Errorf("the log of %s is %q", id, log)
		}
	}
	if r := a.berth("run", "--on", "one", busybox, "true"); r.code != 0 {
		t.Errorf("after that: exit %d, %s", r.code, r.stderr)
	}
	if strings.Contains(a.log.String(), pgtest.Password) {
		t.Error("the password is in the log")
	}
}
