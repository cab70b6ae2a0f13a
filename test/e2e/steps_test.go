//go:build e2e

package e2e

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

func secretOf(name, key, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{key: value}}
}

// orderToken reads the token of a pod's agent out of the pod itself.
func orderToken(t *testing.T, s *site, pod string) string {
	t.Helper()
	p, err := admin.CoreV1().Pods(s.namespace).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	for _, v := range p.Spec.Containers[0].Env {
		environ = append(environ, v.Name+"="+strings.ReplaceAll(v.Value, "$$", "$"))
	}
	order, _, err := agent.ReadOrder(environ)
	if err != nil {
		t.Fatal(err)
	}
	return order.Callback.Token
}

// metrics are the server's, read with a token for that.
func (o *office) metrics() string {
	o.t.Helper()
	token := strings.TrimSpace(o.must("server", "token", "create", "prometheus", "--role", "read"))
	request, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+o.address+"/metrics", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := o.client().Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		o.t.Fatalf("metrics: status %d, %v\n%s", response.StatusCode, err, data)
	}
	return string(data)
}

func grep(text, word string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// Steps run one after the other in an image that knows nothing of Berth, each
// with its own status, time and log.
func TestSteps(t *testing.T) {
	o := newOffice(t, true, "")
	o.write("task.yaml", `version: 1
image: `+busybox+`
env: {WHO: world}
steps:
  - name: greet
    run: |
      echo "hello $WHO"
      printf 'no newline'
  - name: flaky
    run: echo trouble >&2; exit 3
    ignore_failure: true
  - {name: last, command: [echo, "a  b", $WHO], env: {X: y}}
`)
	r := o.berth("run", "-f", "task.yaml", "--name", "stepped")
	if r.code != 0 || r.stdout != "hello world\nno newline\na  b $WHO\n" || !strings.Contains(r.stderr, "\ntrouble\n") {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
	task := o.tasks()[0]
	want := []struct {
		name  string
		state berth.StepState
		code  int
	}{{"greet", berth.StepSucceeded, 0}, {"flaky", berth.StepFailed, 3}, {"last", berth.StepSucceeded, 0}}
	for i, s := range task.Steps {
		if s.Name != want[i].name || s.State != want[i].state || s.ExitCode == nil || *s.ExitCode != want[i].code || s.StartedAt == nil || s.FinishedAt == nil {
			t.Errorf("step %d: %+v", i+1, s)
		}
	}
	for step, text := range map[string]string{"greet": "hello world\nno newline\n", "2": "trouble\n", "last": "a  b $WHO\n"} {
		if r := o.berth("task", "logs", "--step", step, task.ID); r.stdout+r.stderr != text || (r.stderr != "") != (step == "2") {
			got := r.stdout + r.stderr
			t.Errorf("log of step %s: %q, want %q", step, got, text)
		}
	}
}

// A later success never hides an earlier failure, and what can't run says why.
func TestStepsThatFail(t *testing.T) {
	o := newOffice(t, false, "")
	for name, tt := range map[string]struct {
		steps string
		code  int
		cause berth.Cause
		words string
		last  berth.StepState
	}{
		"the second fails":  {"[{run: 'true'}, {name: bang, run: exit 7}, {run: 'true'}]", 7, berth.CauseExitedNonZero, "Step bang (2 of 3)", berth.StepSkipped},
		"a command mid-way": {"[{name: one, run: \"false\\necho went on\"}]", 1, berth.CauseExitedNonZero, "Step one", berth.StepFailed},
		"no such command":   {"[{name: nocmd, command: [nothere, x]}]", 127, berth.CauseCommandNotFound, "nothere", berth.StepFailed},
		"not executable":    {"[{name: noexec, command: [/etc/hostname]}]", 126, berth.CauseCommandNotExecutable, "not executable", berth.StepFailed},
		"over its time":     {"[{name: slow, run: sleep 60, timeout: 1s}]", berth.ExitTimedOut, berth.CauseTimedOut, "timeout of 1s", berth.StepFailed},
		"ended by a signal": {"[{name: sig, run: 'kill -SEGV $$'}]", 139, berth.CauseSignalled, "signal", berth.StepFailed},
	} {
		file := o.write("task.yaml", "version: 1\nimage: "+busybox+"\nsteps: "+tt.steps+"\n")
		r := o.berth("run", "-f", file)
		task := o.tasks()[0]
		if r.code != tt.code || task.Diagnosis == nil || task.Diagnosis.Cause != tt.cause || !strings.Contains(task.Diagnosis.Summary, tt.words) {
			t.Errorf("%s: exit %d, %+v\n%s", name, r.code, task.Diagnosis, r.stderr)
		}
		if got := task.Steps[len(task.Steps)-1].State; got != tt.last {
			t.Errorf("%s: the last step is %s, want %s", name, got, tt.last)
		}
		if strings.Contains(r.stdout, "went on") {
			t.Errorf("%s: the script went on after a failed command", name)
		}
	}
	// The timeout of the task, not of a step, and what the agent was told to end by.
	file := o.write("task.yaml", "version: 1\nimage: "+busybox+"\ntimeout: 2s\nsteps: [{name: long, run: sleep 100}]\n")
	if r := o.berth("run", "-f", file); r.code != berth.ExitTimedOut {
		t.Errorf("over the task's time: exit %d\n%s", r.code, r.stderr)
	}
	// Out of memory is the cluster's to say.
	file = o.write("task.yaml", "version: 1\nimage: "+busybox+"\nmemory: 32Mi\nsteps: [{name: big, run: 'tail /dev/zero'}]\n")
	o.berth("run", "-f", file)
	if task := o.tasks()[0]; task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseOOMKilled {
		t.Errorf("out of memory: %+v", task.Diagnosis)
	}
}

// Without a registry or agent_image steps are refused before anything is stored.
func TestStepsNeedAnAgentFromSomewhere(t *testing.T) {
	s := newSite(t)
	file := s.write("task.yaml", "version: 1\nimage: "+busybox+"\nsteps: [{run: 'true'}]\n")
	if r := s.berth("run", "-f", file); r.code != berth.ExitNone || !strings.Contains(r.stderr, "agent_image") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if n := len(s.tasks()); n != 0 {
		t.Errorf("%d tasks were stored", n)
	}
}

// A namespace with Pod Security restricted takes the agent too.
func TestStepsInARestrictedNamespace(t *testing.T) {
	o := newOffice(t, true, "")
	ns, err := admin.CoreV1().Namespaces().Get(t.Context(), o.namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if _, err := admin.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	file := o.write("task.yaml", "version: 1\nimage: "+busybox+"\nuser: 1000:1000\nsteps: [{run: id -u}]\n")
	if r := o.berth("run", "-f", file); r.code != 0 || r.stdout != "1000\n" {
		t.Errorf("exit %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
}
