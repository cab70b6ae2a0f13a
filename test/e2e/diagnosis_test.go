//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocireg "github.com/google/go-containerregistry/pkg/registry"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/retry"

	"github.com/berth-run/berth"
)

// impatient keeps the tests short: what does not start is given up soon.
const impatient = "grace: {start_timeout: 6s, pull_grace: 2s, config_grace: 2s}\n"

// forever runs until it is told to end, and ends then.
const forever = "trap 'exit 0' TERM; while :; do sleep 0.1; done"

// within bounds what a test waits for.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// explained is the diagnosis that berth task explain gives; get has to give
// the same.
func (s *site) explained(id string) berth.Diagnosis {
	s.t.Helper()
	var told struct{ Diagnosis *berth.Diagnosis }
	if err := json.Unmarshal([]byte(s.must("task", "explain", id, "-o", "json")), &told); err != nil {
		s.t.Fatal(err)
	}
	if told.Diagnosis == nil {
		s.t.Fatalf("task %s is not explained", id)
	}
	if got := s.task(id).Diagnosis; !got.Same(told.Diagnosis) {
		s.t.Errorf("explain says %+v, get says %+v", told.Diagnosis, got)
	}
	return *told.Diagnosis
}

// withoutEvidence are causes that no text of the cluster tells.
var withoutEvidence = []berth.Cause{berth.CauseStartTimedOut, berth.CauseCancelled}

// check compares a diagnosis with its cause and the names and numbers that a
// person needs to see.
func check(t *testing.T, d berth.Diagnosis, cause berth.Cause, words ...string) {
	t.Helper()
	if d.Cause != cause {
		t.Errorf("cause %s, want %s: %s\n%+v", d.Cause, cause, d.Summary, d.Evidence)
	} else {
		produced(cause)
	}
	for _, word := range words {
		if !strings.Contains(d.Summary, word) {
			t.Errorf("the summary lacks %q: %s", word, d.Summary)
		}
	}
	if d.Remedy.Text == "" || d.Remedy.By == "" || len(d.Evidence) == 0 && !slices.Contains(withoutEvidence, cause) {
		t.Errorf("no remedy, or no evidence: %+v", d)
	}
}

// byName returns the id of the task with a name.
func (s *site) byName(name string) string {
	s.t.Helper()
	for _, task := range s.tasks() {
		if task.Name != nil && *task.Name == name {
			return task.ID
		}
	}
	s.t.Fatalf("there is no task %s", name)
	return ""
}

// diagnosed waits until a task shows a cause.
func (s *site) diagnosed(id string, cause berth.Cause) berth.Task {
	s.t.Helper()
	var task berth.Task
	waitFor(s.t, fmt.Sprintf("task %s shows %s", id, cause), 60*time.Second, func() bool {
		task = s.task(id)
		return task.Diagnosis != nil && task.Diagnosis.Cause == cause
	})
	return task
}

// noPreflight has berth run store a task that the cluster is known to refuse.
var noPreflight = []string{"--no-preflight"}

// diagnosisCase is a task that fails, and how.
type diagnosisCase struct {
	name  string
	args  []string // after berth run
	code  int
	cause berth.Cause
	words []string // of the summary
}

// fail runs all cases at once, each as a berth run of its own, and asserts
// what berth run, task wait, task get and task explain tell of each.
func (s *site) fail(cases []diagnosisCase) {
	runs := make([]*running, len(cases))
	for i, c := range cases {
		runs[i] = s.start(slices.Concat([]string{"run", "--name", fmt.Sprintf("case-%d", i)}, noPreflight, c.args)...)
	}
	for i, c := range cases {
		s.t.Run(c.name, func(t *testing.T) {
			s := &site{t: t, dir: s.dir, namespace: s.namespace}
			runs[i].t = t
			r := runs[i].wait(within(t, 120*time.Second))
			if r.code != c.code || !strings.Contains(r.stderr, string(c.cause)) {
				t.Errorf("exit %d, want %d\n%s", r.code, c.code, r.stderr)
			}
			id := s.byName(fmt.Sprintf("case-%d", i))
			check(t, s.explained(id), c.cause, c.words...)
			if r := s.berth("task", "wait", id); r.code != c.code {
				t.Errorf("wait: exit %d, want %d", r.code, c.code)
			}
			if state := s.task(id).State; state != berth.StateFailed {
				t.Errorf("the task is %s", state)
			}
		})
	}
}

func TestDiagnosisOfWhatTheSchedulerRefuses(t *testing.T) {
	s := newSite(t)
	s.record()
	s.infra(impatient)
	s.fail([]diagnosisCase{
		{"CPU", []string{"--cpu", "512", busybox, "true"}, 125, berth.CauseInsufficientCPU, []string{"512 CPU", "0 of 1 nodes", "even when nothing else runs"}},
		{"memory", []string{"--memory", "64Ti", busybox, "true"}, 125, berth.CauseInsufficientMemory, []string{"64Ti of memory", "0 of 1 nodes fit (1 Insufficient memory)"}},
		{"local disk", []string{"--ephemeral-storage", "900Ti", busybox, "true"}, 125, berth.CauseInsufficientEphemeralStorage, []string{"900Ti", "0 of 1 nodes"}},
		{"GPUs", []string{"--gpu", "2", busybox, "true"}, 125, berth.CauseInsufficientGPU, []string{"2 nvidia.com/gpu"}},
	})
	s.infra(impatient + "pod: {node_selector: {disk: made-of-gold}}\n")
	s.fail([]diagnosisCase{{"node selector", []string{"--label", "by=selector", busybox, "true"}, 125, berth.CauseNodeSelectorMismatch, []string{"disk=made-of-gold"}}})
}

func TestDiagnosisOfATaintEndsWithIt(t *testing.T) {
	s := newSite(t)
	s.record()
	taint := corev1.Taint{Key: "berth.run/e2e", Value: "reserved", Effect: corev1.TaintEffectNoSchedule}
	setTaint := func(on bool) {
		t.Helper()
		err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			nodes, err := admin.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, node := range nodes.Items {
				kept := node.Spec.Taints[:0]
				for _, other := range node.Spec.Taints {
					if other.Key != taint.Key {
						kept = append(kept, other)
					}
				}
				if node.Spec.Taints = kept; on {
					node.Spec.Taints = append(kept, taint)
				}
				if _, err := admin.CoreV1().Nodes().Update(context.Background(), &node, metav1.UpdateOptions{}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { setTaint(false) })
	setTaint(true)
	run := s.start("run", "--name", "reserved", busybox, "echo", "after all")
	waitFor(t, "berth run says why it waits", 30*time.Second, func() bool { return strings.Contains(run.stderr.String(), "TaintNotTolerated") })
	check(t, s.explained(s.byName("reserved")), berth.CauseTaintNotTolerated, "reserved by a taint", "0 of 1 nodes fit (1 untolerated taint(s))")
	setTaint(false)
	if r := run.wait(within(t, 60*time.Second)); r.code != 0 || r.stdout != "after all\n" {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
	if told := s.diagnoses(s.byName("reserved")); !slices.Equal(told, []string{"Diagnosed TaintNotTolerated", "Cleared TaintNotTolerated"}) {
		t.Errorf("it was told %q", told)
	}
}

// diagnoses are a task's diagnoses in the order in which they came and went.
func (s *site) diagnoses(id string) []string {
	s.t.Helper()
	var events []berth.Event
	if err := json.Unmarshal([]byte(s.must("task", "events", id, "-o", "json")), &events); err != nil {
		s.t.Fatal(err)
	}
	var told []string
	for _, e := range events {
		if cause, _, _ := strings.Cut(e.Message, ":"); e.Type == berth.EventDiagnosed || e.Type == berth.EventCleared {
			told = append(told, string(e.Type)+" "+cause)
		}
	}
	return told
}

// What keeps a task from starting changes, and in the end nothing does.
func TestDiagnosisChangesAsItsCauseDoes(t *testing.T) {
	s := newSite(t)
	s.record()
	label := "e2e.example.org/" + s.namespace
	s.infra("pod: {node_selector: {" + label + ": here}}\ngrace: {pull_grace: 60s}\n")
	var there atomic.Bool
	images := ocireg.New(ocireg.Logger(log.New(io.Discard, "", 0)))
	address := registry(t, func(w http.ResponseWriter, r *http.Request) {
		if !there.Load() {
			answer(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)(w, r)
			return
		}
		images.ServeHTTP(w, r)
	})
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	there.Store(true)
	image := pushProgram(t, address+"/tool:1", runtime.GOARCH, program)
	there.Store(false)
	run := s.start("run", "--name", "changes", image, "sleep", "2")
	id := func() string { return s.byName("changes") }
	told := func(cause berth.Cause) {
		t.Helper()
		waitFor(t, "berth run says "+string(cause), 30*time.Second, func() bool { return strings.Contains(run.stderr.String(), string(cause)) })
	}
	told(berth.CauseNodeSelectorMismatch)
	node := nodeName(t)
	set := func(value string) {
		t.Helper()
		if _, err := admin.CoreV1().Nodes().Patch(background, node, types.MergePatchType, []byte(`{"metadata": {"labels": {"`+label+`": `+value+`}}}`), metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { set("null") })
	set(`"here"`)
	told(berth.CauseImageNotFound)
	there.Store(true)
	if r := run.wait(within(t, 60*time.Second)); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	var causes []string
	for _, d := range s.diagnoses(id()) {
		if len(causes) == 0 || causes[len(causes)-1] != d {
			causes = append(causes, d)
		}
	}
	want := []string{"Diagnosed NodeSelectorMismatch", "Cleared NodeSelectorMismatch", "Diagnosed ImageNotFound", "Cleared ImageNotFound"}
	if !slices.Equal(causes, want) {
		t.Errorf("it was told %q, want %q", causes, want)
	}
}

func TestDiagnosisOfImages(t *testing.T) {
	s := newSite(t)
	s.record()
	s.infra(impatient)
	empty := registry(t, answer(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
	private := registry(t, answer(401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
	closed := plainHTTP(t, closedPort(t, hostIP(t)))
	silent := registry(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s.fail([]diagnosisCase{
		{"not found", []string{empty + "/tool:1", "true"}, 125, berth.CauseImageNotFound, []string{empty + "/tool:1"}},
		{"unauthorized", []string{private + "/tool:1", "true"}, 125, berth.CauseImageUnauthorized, []string{private, "tool:1"}},
		{"registry unreachable", []string{closed + "/tool:1", "true"}, 125, berth.CauseRegistryUnreachable, []string{closed, "tool:1"}},
		{"never pull", []string{"--pull", "never", empty + "/other:1", "true"}, 125, berth.CauseImageNeverPull, []string{empty + "/other:1", "--pull never"}},
		{"nothing is said until start_timeout", []string{silent + "/tool:1", "true"}, 125, berth.CauseStartTimedOut, []string{"after 6s"}},
	})
	// Which Secret it was is in an event, which may come later than the status.
	s.infra("grace: {pull_grace: 8s}\npod: {image_pull_secrets: [nosuch]}\n")
	s.fail([]diagnosisCase{{"a pull Secret that is not there", []string{private + "/tool:2", "true"}, 125, berth.CauseImageUnauthorized, []string{private, "pull Secret nosuch"}}})
	if r := s.berth("run", "--name", "capitals", "docker.io/library/BusyBox:1.35", "true"); r.code != 125 || !strings.Contains(r.stderr, "must be lower case") {
		t.Errorf("an invalid name: exit %d\n%s", r.code, r.stderr)
	}
}

func TestDiagnosisOfHowAProgramEnds(t *testing.T) {
	s := newSite(t)
	s.record()
	s.fail([]diagnosisCase{
		{"command not found", []string{busybox, "no-such-program", "-x"}, 127, berth.CauseCommandNotFound, []string{"no-such-program", busybox}},
		{"not executable", []string{"--entrypoint", "/etc", busybox}, 126, berth.CauseCommandNotExecutable, []string{"/etc"}},
		{"out of memory", []string{"--memory", "24Mi", busybox, "tail", "/dev/zero"}, 137, berth.CauseOOMKilled, []string{"24Mi"}},
		{"exit code", []string{busybox, "sh", "-c", "echo before; exit 3"}, 3, berth.CauseExitedNonZero, []string{"3"}},
		{"signal", []string{busybox, "sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"}, 139, berth.CauseSignalled, []string{"SIGSEGV"}},
		{"local disk", []string{"--ephemeral-storage", "1Mi", busybox, "sh", "-c", "head -c 30000000 /dev/zero > /tmp/much; sleep 300"}, 137, berth.CauseEvicted, []string{"exceeds the total limit of containers 1Mi"}},
		{"timeout", []string{"--timeout", "2s", busybox, "sh", "-c", forever}, 124, berth.CauseTimedOut, []string{"2s"}},
	})
}

func TestDiagnosisOfAQuotaWhichIsRaised(t *testing.T) {
	tests := []struct {
		name         string
		hard, raised corev1.ResourceList
		args         []string
		words        []string
	}{
		{
			"pods", corev1.ResourceList{"pods": resource.MustParse("1")}, corev1.ResourceList{"pods": resource.MustParse("5")},
			nil, []string{"of-the-team", "pods: 1 asked for, 1 of 1 in use, 1 too much"},
		},
		{
			"CPU", corev1.ResourceList{"limits.cpu": resource.MustParse("150m")}, corev1.ResourceList{"limits.cpu": resource.MustParse("1")},
			[]string{"--cpu", "100m"}, []string{"of-the-team", "limits.cpu: 100m asked for, 100m of 150m in use, 50m too much"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			s.setQuota(test.hard)
			first := s.detach(append(test.args, busybox, "sh", "-c", forever)...)
			second := s.start(append(append([]string{"run", "--name", "second"}, test.args...), busybox, "echo", "there is room")...)
			waitFor(t, "berth run says why it waits", 30*time.Second, func() bool { return strings.Contains(second.stderr.String(), "QuotaExceeded") })
			id := s.byName("second")
			if task := s.diagnosed(id, berth.CauseQuotaExceeded); task.State != berth.StateQueued {
				t.Errorf("the task is %s", task.State)
			}
			check(t, s.explained(id), berth.CauseQuotaExceeded, test.words...)
			raised := time.Now()
			s.setQuota(test.raised)
			if r := second.wait(within(t, 30*time.Second)); r.code != 0 || r.stdout != "there is room\n" {
				t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
			}
			if took := time.Since(raised); took > 15*time.Second {
				t.Errorf("it ended %s after the quota was raised", took)
			}
			s.must("task", "cancel", first)
		})
	}
}

// setQuota makes or changes the namespace's quota, and waits until it counts.
func (s *site) setQuota(hard corev1.ResourceList) {
	s.t.Helper()
	quotas := admin.CoreV1().ResourceQuotas(s.namespace)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "of-the-team"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	_, err := quotas.Create(s.t.Context(), quota, metav1.CreateOptions{})
	if err != nil {
		err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
			now, err := quotas.Get(s.t.Context(), quota.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			now.Spec.Hard = hard
			_, err = quotas.Update(s.t.Context(), now, metav1.UpdateOptions{})
			return err
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "the quota counts", 30*time.Second, func() bool {
		now, err := quotas.Get(s.t.Context(), quota.Name, metav1.GetOptions{})
		return err == nil && len(now.Status.Used) == len(hard) && now.Status.Hard != nil
	})
}

func TestDiagnosisOfALimitRange(t *testing.T) {
	s := newSite(t)
	s.record()
	_, err := admin.CoreV1().LimitRanges(s.namespace).Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{"cpu": resource.MustParse("500m")},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.fail([]diagnosisCase{{"CPU", []string{"--cpu", "2", busybox, "true"}, 125, berth.CauseLimitRangeViolated, []string{"500m", "2"}}})
}

func TestDiagnosisOfPodSecurityRestricted(t *testing.T) {
	s := newSite(t)
	s.record()
	s.enforce("restricted")
	if got := s.must("run", "--user", "1000", busybox, "id", "-u"); got != "1000\n" {
		t.Errorf("with --user 1000 the output is %q", got)
	}
	s.fail([]diagnosisCase{{"as root", []string{busybox, "true"}, 125, berth.CauseRunAsNonRootViolated, []string{busybox, "root"}}})
}

func TestDiagnosisOfAClusterOutOfReachWhileATaskRuns(t *testing.T) {
	s := newSite(t)
	network := s.throughProxy()
	run := s.start("run", "--name", "cut-off", busybox, "sh", "-c", "echo begun; sleep 4; echo over; exit 5")
	waitFor(t, "it runs", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), "begun") })
	network.cut()
	id := s.byName("cut-off")
	task := s.diagnosed(id, berth.CauseClusterUnreachable)
	if task.State != berth.StateRunning || task.Stale == nil || !strings.Contains(*task.Stale, network.address) {
		t.Errorf("while out of reach: %s, stale %v", task.State, task.Stale)
	}
	check(t, s.explained(id), berth.CauseClusterUnreachable, network.address)
	waitFor(t, "the program has ended", 60*time.Second, func() bool {
		pods := s.pods()
		return len(pods) == 1 && pods[0].Status.Phase == corev1.PodFailed
	})
	if task := s.task(id); task.State != berth.StateRunning {
		t.Errorf("before the network was back it is %s", task.State)
	}
	network.restore()
	if r := run.wait(within(t, 60*time.Second)); r.code != 5 || r.stdout != "begun\nover\n" {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
	if task := s.task(id); task.Stale != nil || task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseExitedNonZero {
		t.Errorf("at the end: %+v", task)
	}
}

func TestDiagnosisOfARoleThatLacksCreate(t *testing.T) {
	s := newSite(t)
	s.record()
	s.withoutRight("create", "pods")
	s.fail([]diagnosisCase{{"create", []string{busybox, "true"}, 125, berth.CauseForbidden, []string{"create pods", "namespace " + s.namespace, "system:serviceaccount:" + s.namespace + ":berth"}}})
}

// What only events tell can't be told without the right to read them: it is
// said that this is missing, and the pod's own status still says the rest.
func TestDiagnosisWithoutTheRightToReadEvents(t *testing.T) {
	s := newSite(t)
	for _, verb := range []string{"list", "watch"} {
		s.withoutRight(verb, "events")
	}
	s.infra("grace: {start_timeout: 15s, pull_grace: 2s, config_grace: 2s}\n") // a busy kubelet says late that it begins
	s.alterPods(map[string]string{"mount": missingSecretVolume})
	empty := registry(t, answer(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
	s.fail([]diagnosisCase{
		{"no node", []string{"--cpu", "512", busybox, "true"}, 125, berth.CauseInsufficientCPU, []string{"512 CPU"}},
		{"no image", []string{empty + "/tool:1", "true"}, 125, berth.CauseImageNotFound, []string{empty + "/tool:1"}},
		{"told by events alone", []string{"--label", alterLabel + "=mount", busybox, "true"}, 125, berth.CauseStartTimedOut, []string{"after 15s"}},
	})
	for name, words := range map[string]string{"case-0": "may not list events in namespace " + s.namespace, "case-1": "may not list events in namespace " + s.namespace, "case-2": "which this kubeconfig may not list"} {
		if page := strings.Join(strings.Fields(s.must("task", "explain", s.byName(name))), " "); !strings.Contains(page, words) {
			t.Errorf("%s: what could not be seen is not said:\n%s", name, page)
		}
	}
}

// A process that comes to a task late has waited for nothing, and knows no less
// than one that was there: how long nothing happened, and by the events why.
func TestDiagnosisOfAPodThatNobodyLookedAt(t *testing.T) {
	t.Parallel()
	for name, is := range map[string]struct {
		events bool
		cause  berth.Cause
		words  string
	}{
		"with events":    {true, berth.CauseMountFailed, "company-ca"},
		"without events": {false, berth.CauseStartTimedOut, "which this kubeconfig may not list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if !is.events {
				s.withoutRight("list", "events")
				s.withoutRight("watch", "events")
			}
			s.infra("grace: {start_timeout: 5s, config_grace: 2s}\n")
			s.alterPods(map[string]string{"mount": missingSecretVolume})
			id := s.detach("--label", alterLabel+"=mount", busybox, "true")
			waitFor(t, "its time is over", 60*time.Second, func() bool {
				pods := s.pods()
				return len(pods) == 1 && time.Since(pods[0].CreationTimestamp.Time) > 6*time.Second
			})
			waitFor(t, "its kubelet has said why", 60*time.Second, func() bool {
				events, err := admin.CoreV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedMount"})
				return err == nil && len(events.Items) > 0
			})
			if r := s.berth("task", "wait", id); r.code != 125 {
				t.Errorf("exit %d\n%s", r.code, r.stderr)
			}
			check(t, s.explained(id), is.cause)
			if page := strings.Join(strings.Fields(s.must("task", "explain", id)), " "); !strings.Contains(page, is.words) {
				t.Errorf("%q is not in\n%s", is.words, page)
			}
		})
	}
}

// without is a rule's verbs without one, if the rule is for that resource.
func without(rule rbacv1.PolicyRule, verb, resource string) []string {
	var verbs []string
	for _, v := range rule.Verbs {
		if v != verb || len(rule.Resources) == 0 || rule.Resources[0] != resource {
			verbs = append(verbs, v)
		}
	}
	return verbs
}

func TestDiagnosisOfARevokedTokenUntilThereIsAnother(t *testing.T) {
	s := newSite(t)
	id := s.detach(busybox, "sh", "-c", "sleep 12; exit 6")
	waitFor(t, "it runs", 60*time.Second, func() bool { return s.task(id).State == berth.StateRunning })
	secrets := admin.CoreV1().Secrets(s.namespace)
	if err := secrets.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: berth.LabelManagedBy + "=" + berth.LabelManagedByValue}); err != nil {
		t.Fatal(err)
	}
	task := s.diagnosed(id, berth.CauseUnauthorized)
	if task.State != berth.StateRunning || task.Stale == nil {
		t.Errorf("the task is %s, stale %v", task.State, task.Stale)
	}
	check(t, s.explained(id), berth.CauseUnauthorized, "does not accept the credentials")
	if r := s.berth("run", busybox, "true"); r.code != 125 || len(s.pods()) != 1 {
		t.Errorf("a further run: exit %d, %d pods\n%s", r.code, len(s.pods()), r.stderr)
	}
	wait := s.start("task", "wait", id)
	waitFor(t, "wait says what it waits for", 30*time.Second, func() bool { return strings.Contains(wait.stderr.String(), "Unauthorized") })
	r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, "create-kubeconfig", "--namespace", s.namespace, "-o", s.kubeconfig, "--force")
	if r.code != 0 {
		t.Fatalf("a new kubeconfig: exit %d\n%s", r.code, r.stderr)
	}
	if r := wait.wait(within(t, 90*time.Second)); r.code != 6 {
		t.Errorf("wait: exit %d\n%s", r.code, r.stderr)
	}
}

// A plugin's token stops being accepted in the middle of a run, and the
// connection breaks: the plugin is asked again, and nothing else is noticed.
func TestDiagnosisIsNoneWhenAnExecPluginHasANewToken(t *testing.T) {
	s := newSite(t)
	network := s.throughProxy()
	holder := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "holds-the-first-token"}}
	holder, err := admin.CoreV1().Secrets(s.namespace).Create(t.Context(), holder, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := func(boundTo *authenticationv1.BoundObjectReference) (token, credential string) {
		t.Helper()
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo}}
		answer, err := admin.CoreV1().ServiceAccounts(s.namespace).CreateToken(t.Context(), "berth", request, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status.Token, fmt.Sprintf(`{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": %q}}`, answer.Status.Token)
	}
	first, text := token(&authenticationv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: holder.Name, UID: holder.UID})
	credential := s.write("credential.json", text)
	plugin := s.write("plugin.sh", "#!/bin/sh\necho called >> "+s.dir+"/calls\ncat "+credential+"\n")
	s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) {
		user.Token = ""
		user.Exec = &api.ExecConfig{APIVersion: "client.authentication.k8s.io/v1", Command: "sh", Args: []string{plugin}, InteractiveMode: api.NeverExecInteractiveMode}
	})
	run := s.start("run", "--name", "plugged", busybox, "sh", "-c", "echo begun; sleep 15; echo over; exit 9")
	waitFor(t, "it runs", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), "begun") })
	if err := admin.CoreV1().Secrets(s.namespace).Delete(t.Context(), holder.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	rejected(t, first)
	_, text = token(nil)
	s.write("credential.json", text)
	network.drop()
	if r := run.wait(within(t, 60*time.Second)); r.code != 9 || r.stdout != "begun\nover\n" || strings.Contains(r.stderr, "Unauthorized") {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
	waitFor(t, "its pod is deleted", 30*time.Second, func() bool { s.must("task", "list"); return len(s.pods()) == 0 })
}
