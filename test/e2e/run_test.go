//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

func TestRunGivesOutputAndExitCodeOfTheProgram(t *testing.T) {
	s := newSite(t)
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
	}{
		{"output", []string{busybox, "echo", "hello"}, 0, "hello\n"},
		{"exit code", []string{busybox, "sh", "-c", "exit 3"}, 3, ""},
		{"no newline at the end", []string{busybox, "printf", "abc"}, 0, "abc"},
		{"dashes are the program's", []string{busybox, "echo", "-n", "--on", "x"}, 0, "--on x"},
		{"a separator", []string{busybox, "--", "echo", "--name"}, 0, "--name\n"},
		{"environment", []string{"--env", "A=b c", "--env", "P=$(A)", busybox, "sh", "-c", `echo "$A|$P"`}, 0, "b c|$(A)\n"},
		{"dollars", []string{"--env", "A=b", "--env", "P=$$", busybox, "sh", "-c", `test $$ = 1 && echo "$(echo ran)|$P|$1"`, "sh", "$(A)"}, 0, "ran|$$|$(A)\n"},
		{"entrypoint", []string{"--entrypoint", "echo", busybox, "hi"}, 0, "hi\n"},
		{"user", []string{"--user", "1234:5678", busybox, "sh", "-c", "id -u; id -g"}, 0, "1234\n5678\n"},
		{"unicode", []string{busybox, "echo", "Grüße, 世界"}, 0, "Grüße, 世界\n"},
		{"unprivileged", []string{busybox, "sh", "-c", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | tr -s '\\t' ' '; ls /var/run/secrets 2>/dev/null"}, 1, "CapEff: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &site{t: t, dir: s.dir, namespace: s.namespace}
			r := s.berth(append([]string{"run"}, test.args...)...)
			if r.code != test.code || r.stdout != test.stdout {
				t.Errorf("exit %d, want %d\nstdout (-want +got):\n%s\nstderr: %s", r.code, test.code, cmp.Diff(test.stdout, r.stdout), r.stderr)
			}
		})
	}
	waitFor(t, "no pod is left", 30*time.Second, func() bool { s.berth("task", "list"); return len(s.pods()) == 0 })
}

func TestATaskIsToldAsJSON(t *testing.T) {
	s := newSite(t)
	id := s.detach("--name", "first", "--label", "team=a", "--cpu", "100m", "--memory", "32Mi", busybox, "true")
	if r := s.berth("task", "wait", id); r.code != 0 {
		t.Fatalf("wait: exit %d: %s", r.code, r.stderr)
	}
	task := s.task(id)
	if task.State != berth.StateSucceeded || task.ExitCode == nil || *task.ExitCode != 0 || task.Diagnosis != nil || task.Attempt != 1 {
		t.Errorf("task %+v", task)
	}
	if task.StartedAt == nil || task.FinishedAt == nil || task.FinishedAt.Before(*task.StartedAt) {
		t.Errorf("started %v, finished %v", task.StartedAt, task.FinishedAt)
	}
	want := []berth.EventType{berth.EventQueued, berth.EventAdmitted, berth.EventCreated, berth.EventScheduled, berth.EventPulled, berth.EventStarted, berth.EventFinished}
	if diff := cmp.Diff(want, s.events(id)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, filter := range [][]string{{"--name", "first"}, {"--label", "team=a"}, {"--state", "succeeded"}, {"--on", "here"}} {
		if out := s.must(append([]string{"task", "list"}, filter...)...); !strings.Contains(out, id) {
			t.Errorf("task list %v doesn't show it:\n%s", filter, out)
		}
	}
	if out := s.must("task", "list", "--label", "team=b"); strings.Contains(out, id) {
		t.Errorf("task list shows it for another label:\n%s", out)
	}
}

func TestLogsOutliveThePod(t *testing.T) {
	s := newSite(t)
	id := s.detach(busybox, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last")
	if r := s.berth("task", "wait", id); r.code != 0 {
		t.Fatalf("wait: %s", r.stderr)
	}
	waitFor(t, "the pod is deleted", 30*time.Second, func() bool { s.berth("task", "list"); return len(s.pods()) == 0 })
	var want strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	got := s.must("task", "logs", id)
	if got != want.String()+"last\n" {
		t.Errorf("the log has %d bytes, want %d", len(got), want.Len()+5)
	}
	if got := s.must("task", "logs", "--tail", "2", id); got != "line 19999\nlast\n" {
		t.Errorf("--tail 2 gives %q", got)
	}
	if got := s.must("task", "logs", "-t", "--tail", "1", id); !strings.HasSuffix(got, "Z last\n") {
		t.Errorf("-t gives %q", got)
	}
	if got := s.must("task", "logs", "--since", "2100-01-01T00:00:00Z", id); got != "" {
		t.Errorf("--since gives %q", got)
	}
}

func TestTimeout(t *testing.T) {
	s := newSite(t)
	r := s.berth("run", "--timeout", "2s", busybox, "sh", "-c", "trap 'sleep 1; echo stopped; exit 1' TERM; echo begun; while true; do sleep 0.1; done")
	if r.code != berth.ExitTimedOut || r.stdout != "begun\nstopped\n" || !strings.Contains(r.stderr, "TimedOut") {
		t.Errorf("exit %d, stdout %q\n%s", r.code, r.stdout, r.stderr)
	}
}

func TestRetriesRunAgainUntilItSucceeds(t *testing.T) {
	s := newSite(t)
	r := s.berth("run", "--retries", "1", busybox, "sh", "-c", "echo $HOSTNAME; exit 4")
	if r.code != 4 || strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("exit %d, stdout %q\n%s", r.code, r.stdout, r.stderr)
	}
	tasks := s.tasks()
	if len(tasks) != 1 || tasks[0].Attempt != 2 {
		t.Errorf("tasks %+v", tasks)
	}
}

func TestTheFirstInterruptCancelsTheSecondLeaves(t *testing.T) {
	s := newSite(t)
	cmd := s.command(nil, "run", busybox, "sh", "-c", "trap 'echo stopped; exit 0' TERM; echo begun; while true; do sleep 0.1; done")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task runs", 60*time.Second, func() bool { return strings.Contains(out.String(), "begun\n") })
	interrupt(t, cmd)
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != berth.ExitCancelled || !strings.Contains(out.String(), "stopped\n") {
		t.Errorf("exit %d\n%s", cmd.ProcessState.ExitCode(), out.String())
	}
	if tasks := s.tasks(); tasks[0].State != berth.StateCancelled {
		t.Errorf("the task is %s", tasks[0].State)
	}

	cmd = s.command(nil, "run", busybox, "sh", "-c", "trap '' TERM; echo begun; while true; do sleep 0.1; done")
	out = lockedBuffer{}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task runs", 60*time.Second, func() bool { return strings.Contains(out.String(), "begun\n") })
	interrupt(t, cmd)
	waitFor(t, "it says that it cancels", 10*time.Second, func() bool { return strings.Contains(out.String(), "cancelling") })
	began := time.Now()
	interrupt(t, cmd)
	_ = cmd.Wait()
	if took := time.Since(began); cmd.ProcessState.ExitCode() != berth.ExitCancelled || took > 5*time.Second {
		t.Errorf("exit %d after %s\n%s", cmd.ProcessState.ExitCode(), took, out.String())
	}
	id := s.tasks()[0].ID
	if r := s.berth("task", "wait", id); r.code != berth.ExitCancelled {
		t.Errorf("wait: exit %d\n%s", r.code, r.stderr)
	}
}

func interrupt(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

func TestCancelATaskThatWaits(t *testing.T) {
	s := newSite(t)
	id := s.detach("--memory", "4Ti", busybox, "true")
	s.must("task", "cancel", id)
	if task := s.task(id); task.State != berth.StateCancelled {
		t.Errorf("the task is %s", task.State)
	}
	if r := s.berth("task", "wait", id); r.code != berth.ExitCancelled {
		t.Errorf("wait: exit %d", r.code)
	}
	waitFor(t, "no pod is left", 30*time.Second, func() bool { s.berth("task", "list"); return len(s.pods()) == 0 })
}

func TestATaskFromAFile(t *testing.T) {
	s := newSite(t)
	s.write("task.yaml", "version: 1\nimage: "+busybox+"\nargs: [sh, -c, 'echo $WHO $PLACE']\nenv: {WHO: file, PLACE: file}\ncpu: 100m\ntimeout: 5m\nlabels: {a: b}\n")
	if got := s.must("run", "-f", "task.yaml", "--env", "WHO=flag"); got != "flag file\n" {
		t.Errorf("output %q", got)
	}
	task := s.tasks()[0]
	if task.Spec.CPU != "100m" || task.Spec.Timeout != 5*time.Minute || task.Spec.Labels["a"] != "b" {
		t.Errorf("spec %+v", task.Spec)
	}
}

func TestTheExampleProgramRuns(t *testing.T) {
	s := newSite(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(s.dir, "example")
	build := exec.Command("go", "build", "-o", binary, "./examples/client")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the example: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, busybox, "echo", "from a program")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "from a program\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
