//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func (s *site) metrics(id string) berth.TaskMetrics {
	s.t.Helper()
	var m berth.TaskMetrics
	if err := json.Unmarshal([]byte(s.must("task", "metrics", id, "-o", "json")), &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// asksForMetrics are the requests of metrics.k8s.io so far.
func (s *site) asksForMetrics() []request {
	s.t.Helper()
	var asks []request
	for _, r := range s.requests() {
		if strings.HasPrefix(r.RequestURI, "/apis/metrics.k8s.io/") {
			asks = append(asks, r)
		}
	}
	return asks
}

// countCPU writes what the container has used so far, by its own cgroup, in
// microseconds.
const countCPU = `if [ -f /sys/fs/cgroup/cpu.stat ]; then sed -n 's/^usage_usec //p' /sys/fs/cgroup/cpu.stat; else echo $(($(cat /sys/fs/cgroup/cpuacct/cpuacct.usage) / 1000)); fi`

// cpuSeconds reads what countCPU wrote.
func cpuSeconds(t *testing.T, output string) float64 {
	t.Helper()
	lines := strings.Fields(output) // a shell may have told before that it ended something
	if len(lines) == 0 {
		t.Fatal("no output")
	}
	n, err := strconv.ParseFloat(lines[len(lines)-1], 64)
	if err != nil {
		t.Fatalf("output %q", output)
	}
	return n / 1e6
}

// All tasks of an infrastructure are measured by one request an interval, of a
// role that may do just that.
func TestMetricsOfTasksWithoutAnAgent(t *testing.T) {
	s := newSite(t, "metrics")
	burn := s.start("run", "--name", "burn", "--cpu", "1", "--memory", "256Mi", busybox, "sh", "-c", `trap '`+strings.ReplaceAll(countCPU, "'", `'"'"'`)+`; exit' TERM; while :; do :; done`)
	began := time.Now()
	const others = 49
	for i := range others {
		s.detach("--name", fmt.Sprintf("other-%d", i), busybox, "sleep", "300")
	}
	id := s.byName("burn")
	waitFor(t, "it runs", 60*time.Second, func() bool { return s.task(id).State == berth.StateRunning })
	if m := s.metrics(id); m.Source == nil && (m.Note == nil || !strings.Contains(*m.Note, "sampled")) {
		t.Errorf("before the first sample: %+v", m)
	}
	follow := s.start("task", "metrics", "-f", id) // a page for each sample
	waitFor(t, "three samples", 180*time.Second, func() bool { return strings.Count(follow.stdout.String(), "Measured by") >= 3 })
	s.must("task", "cancel", id)
	r := burn.wait(within(t, 60*time.Second))
	if r.code != berth.ExitCancelled {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	if f := follow.wait(within(t, 30*time.Second)); f.code != 0 || !strings.Contains(f.stdout, "was cancelled") {
		t.Errorf("metrics -f ended with exit %d\n%s%s", f.code, f.stdout, f.stderr)
	}
	took := time.Since(began)
	asks := s.asksForMetrics()
	if n, most := len(asks), int(took/berth.SampleInterval)+1; n < 3 || n > most {
		t.Errorf("%d requests for %d tasks in %s, want 3 to %d", n, others+1, took.Round(time.Second), most)
	}
	for _, r := range s.requests() {
		if r.refused() {
			t.Errorf("refused: %s %s", r.Verb, r.RequestURI)
		}
	}
	for _, r := range asks {
		if r.Verb != "list" || r.ResponseStatus.Code != 200 {
			t.Errorf("%s %s: %d", r.Verb, r.RequestURI, r.ResponseStatus.Code)
		}
	}

	burned := cpuSeconds(t, r.stdout)
	task := s.task(id)
	if u := task.Usage; u.CPUSeconds == nil || *u.CPUSeconds > 1.5*burned || *u.CPUSeconds < burned/2 || u.Source == nil || *u.Source != berth.UsageFromCluster || u.MemoryPeakBytes == nil || *u.MemoryPeakBytes < 100<<10 || *u.MemoryPeakBytes > 64<<20 {
		t.Errorf("it used %.1f CPU seconds, and is said to have used %s", burned, asJSON(u))
	} else {
		t.Logf("it used %.1f CPU seconds, and is said to have used %.1f; %d requests in %s", burned, *u.CPUSeconds, len(asks), took.Round(time.Second))
	}
	m := s.metrics(id)
	if len(m.Samples) < 3 || *m.CPU.Request != 1 || *m.Memory.Limit != 256<<20 || *m.CPU.Peak < *m.CPU.Mean {
		t.Errorf("metrics: %s", asJSON(m))
	}
	for i := 1; i < len(m.Samples); i++ {
		if !m.Samples[i].At.After(m.Samples[i-1].At) || m.Samples[i].CPUSeconds < m.Samples[i-1].CPUSeconds {
			t.Errorf("samples %d and %d: %+v %+v", i-1, i, m.Samples[i-1], m.Samples[i])
		}
	}
	page := s.must("task", "metrics", id)
	for _, want := range []string{"█", "request and limit 1)", "metrics-server", "It asked for 256 MiB of memory and used", "--memory 16Mi"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page:\n%s", want, page)
		}
	}
	if check := s.must("infra", "check"); !strings.Contains(check, "metrics-server answers") {
		t.Errorf("infra check:\n%s", check)
	}
}

func asJSON(value any) string {
	data, _ := json.Marshal(value)
	return string(data)
}

// A task of milliseconds is too short to be sampled, and its agent counts all
// of it, without any way from the pod to the control plane.
func TestMetricsOfStepsOfMilliseconds(t *testing.T) {
	o := newOffice(t, false, "")
	o.write("task.yaml", `version: 1
image: `+busybox+`
cpu: 1
memory: 128Mi
steps:
  - {name: burn, run: "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"}
  - {name: count, run: "`+countCPU+`"}
`)
	r := o.berth("run", "-f", "task.yaml")
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	counted := cpuSeconds(t, r.stdout)
	task := o.tasks()[0]
	u := task.Usage
	if u.CPUSeconds == nil || *u.CPUSeconds < counted || *u.CPUSeconds > counted+0.5 || u.Source == nil || *u.Source != berth.UsageFromAgent || u.MemoryPeakBytes == nil || *u.MemoryPeakBytes < 500<<10 || *u.MemoryPeakBytes > 128<<20 {
		t.Errorf("its cgroup counted %.3f CPU seconds before its end, the agent tells %s", counted, asJSON(u))
	}
	m := o.site.metrics(task.ID)
	if m.Note == nil || !strings.Contains(*m.Note, "too short to be sampled (every 15s)") || len(m.Samples) != 0 || len(m.Advice) != 0 || *m.CPU.Seconds != *u.CPUSeconds {
		t.Errorf("metrics: %s", asJSON(m))
	}
}

// With callbacks an agent tells samples while its task runs: the cluster needs
// no metrics-server, and grants nothing for it.
func TestMetricsByCallback(t *testing.T) {
	o := newOffice(t, true, "")
	o.write("task.yaml", `version: 1
image: `+busybox+`
cpu: 1
memory: 128Mi
steps:
  - {name: burn, run: "timeout 24 sh -c 'while :; do :; done' || true"}
  - {name: count, run: "`+countCPU+`"}
`)
	run := o.site.start("run", "--name", "told", "-f", "task.yaml")
	id := ""
	waitFor(t, "it runs", 60*time.Second, func() bool {
		for _, task := range o.tasks() {
			id = task.ID
			return task.State == berth.StateRunning
		}
		return false
	})
	waitFor(t, "a sample while it runs", 20*time.Second, func() bool { return len(o.site.metrics(id).Samples) > 0 })
	if u := o.task(id).Usage; u.CPUSeconds == nil || *u.CPUSeconds <= 0 || *u.Source != berth.UsageFromAgent {
		t.Errorf("while it runs: %s", asJSON(u))
	}
	r := run.wait(within(t, 60*time.Second))
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	counted := cpuSeconds(t, r.stdout)
	m := o.site.metrics(id)
	if len(m.Samples) < 2 || *m.CPU.Seconds < counted || *m.CPU.Seconds > counted+0.5 || *m.Source != berth.UsageFromAgent || m.CPU.ThrottledSeconds == nil || m.Memory.WorkingSet == nil || *m.Memory.WorkingSet > *m.Memory.Peak {
		t.Errorf("its cgroup counted %.3f CPU seconds before its end: %s", counted, asJSON(m))
	}
	if asks := o.asksForMetrics(); len(asks) != 0 {
		t.Errorf("%d requests of metrics.k8s.io", len(asks))
	}
}

// Without the grant nothing is asked, so nothing is refused, and it says which
// grant that is and who gives it.
func TestMetricsWithoutTheGrant(t *testing.T) {
	s := newSite(t)
	s.start("run", "--name", "unmetered", busybox, "sleep", "600")
	waitFor(t, "it runs", 60*time.Second, func() bool {
		tasks := s.tasks()
		return len(tasks) == 1 && tasks[0].State == berth.StateRunning
	})
	id := s.byName("unmetered")
	waitFor(t, "it says which grant is missing", 40*time.Second, func() bool {
		note := s.metrics(id).Note
		return note != nil && strings.Contains(*note, "berth create-kubeconfig")
	})
	m := s.metrics(id)
	if m.Source != nil || m.CPU.Seconds != nil || m.Note == nil || !strings.Contains(*m.Note, "ask the cluster's engineer") || !strings.Contains(*m.Note, "--profile metrics") {
		t.Errorf("metrics: %s", asJSON(m))
	}
	if asks := s.asksForMetrics(); len(asks) != 0 {
		t.Errorf("%d requests that are not granted", len(asks))
	}
	for _, r := range s.requests() {
		if r.refused() {
			t.Errorf("refused: %s %s", r.Verb, r.RequestURI)
		}
	}
	if check := s.must("infra", "check"); !strings.Contains(check, "profile metrics is not granted") || !strings.Contains(check, "Tasks can run here") {
		t.Errorf("infra check:\n%s", check)
	}
}
