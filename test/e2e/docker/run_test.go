//go:build e2e

package docker

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

func TestRunLogsExplainAndCheck(t *testing.T) {
	s := newSite(t, shared)
	if r := s.berth("run", busybox, "sh", "-c", "echo hello; sleep 0.2; echo there >&2; exit 3"); r.code != 3 || r.stdout != "hello\n" || !strings.Contains(r.stderr, "\nthere\n") || !strings.Contains(r.stderr, "ExitedNonZero") {
		t.Errorf("exit %d, stdout %q\n%s", r.code, r.stdout, r.stderr)
	}
	task := s.tasks()[0]
	if r := s.berth("task", "logs", task.ID); r.stdout != "hello\n" || r.stderr != "there\n" {
		t.Errorf("logs %q, %q", r.stdout, r.stderr)
	}
	if got := s.must("task", "explain", task.ID); !strings.Contains(got, "The program ended by itself with exit code 3.") || !strings.Contains(got, "container state") {
		t.Errorf("explain:\n%s", got)
	}
	want := []berth.EventType{berth.EventQueued, berth.EventAdmitted, berth.EventCreated, berth.EventScheduled, berth.EventPulled, berth.EventStarted, berth.EventFailed}
	if diff := cmp.Diff(want, s.events(task.ID)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got := s.must("infra", "check", "here"); !strings.Contains(got, "Docker Engine") || !strings.Contains(got, "Tasks can run here.") {
		t.Errorf("check:\n%s", got)
	}
	if got := s.must("infra", "list"); !strings.Contains(got, "ready") || !strings.Contains(got, shared.host) || !strings.Contains(got, "docker") {
		t.Errorf("list:\n%s", got)
	}
	s.clean()
}

func TestSteps(t *testing.T) {
	for name, user := range map[string][]string{"the image's user": nil, "another user": {"--user", "1234:5678"}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, shared)
			s.write("task.yaml", "version: 1\nimage: "+busybox+"\nsteps:\n- {name: one, run: 'echo first'}\n- {name: two, run: 'echo second; exit 4'}\n- {name: three, run: 'echo third'}\n")
			r := s.berth(append([]string{"run", "-f", "task.yaml"}, user...)...)
			if r.code != 4 || r.stdout != "first\nsecond\n" {
				t.Errorf("exit %d, stdout %q\n%s", r.code, r.stdout, r.stderr)
			}
			task := s.tasks()[0]
			var states []berth.StepState
			for _, step := range task.Steps {
				states = append(states, step.State)
			}
			if diff := cmp.Diff([]berth.StepState{berth.StepSucceeded, berth.StepFailed, berth.StepSkipped}, states); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			s.clean()
		})
	}
}

func TestCancel(t *testing.T) {
	s := newSite(t, shared)
	cmd := s.command("run", busybox, "sh", "-c", "trap 'echo stopped; exit 0' TERM; echo begun; while true; do sleep 0.1; done")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task runs", time.Minute, func() bool { return strings.Contains(out.String(), "begun\n") })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != berth.ExitCancelled || !strings.Contains(out.String(), "stopped\n") {
		t.Errorf("exit %d\n%s", cmd.ProcessState.ExitCode(), out.String())
	}
	if task := s.tasks()[0]; task.State != berth.StateCancelled {
		t.Errorf("the task is %s", task.State)
	}
	s.clean()
}

func TestCancelDuringAPull(t *testing.T) {
	s := newSite(t, shared)
	silent := silentRegistry(t)
	cmd := s.command("run", silent+"/tool:1", "true")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task is there", 10*time.Second, func() bool { return strings.Contains(out.String(), "launching") })
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != berth.ExitCancelled {
		t.Errorf("exit %d\n%s", cmd.ProcessState.ExitCode(), out.String())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	s.clean()
}

func TestGracePeriodsOfImages(t *testing.T) {
	tests := []struct {
		name        string
		image       string
		cause       berth.Cause
		least, most time.Duration
	}{
		{"not found: pull_grace", registry(t, http.StatusNotFound, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`) + "/tool:1", berth.CauseImageNotFound, 2 * time.Second, 7 * time.Second},
		{"no registry: start_timeout", closedPort(t) + "/tool:1", berth.CauseRegistryUnreachable, 7 * time.Second, 20 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, shared)
			r := s.berth("run", test.image, "true")
			if r.code != berth.ExitNone || !strings.Contains(r.stderr, string(test.cause)) || r.took < test.least || r.took > test.most {
				t.Errorf("exit %d after %s\n%s", r.code, r.took, r.stderr)
			}
		})
	}
}

func TestRetriesRunAgain(t *testing.T) {
	s := newSite(t, shared)
	r := s.berth("run", "--retries", "1", busybox, "sh", "-c", "hostname; exit 4")
	task := s.tasks()[0]
	if want := fmt.Sprintf("berth-%[1]s-1\nberth-%[1]s-2\n", task.ID); r.code != 4 || r.stdout != want || task.Attempt != 2 {
		t.Errorf("exit %d, stdout %q\n%s", r.code, r.stdout, r.stderr)
	}
	s.clean()
}

// ledger counts how often containers were started, as the Engine tells.
func ledger(t *testing.T, engine *dockerd, since time.Time, task string) (created, started int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	result := engine.api.Events(ctx, client.EventsListOptions{
		Since: since.Format(time.RFC3339Nano), Until: time.Now().Format(time.RFC3339Nano),
		Filters: client.Filters{}.Add("type", "container").Add("label", berth.LabelTask+"="+task),
	})
	for {
		select {
		case e := <-result.Messages:
			switch e.Action {
			case events.ActionCreate:
				created++
			case events.ActionStart:
				started++
			}
		case <-result.Err:
			return created, started
		}
	}
}

// TestKilledAtAnyMoment kills berth run at many moments of a task's life; what
// is found afterwards is one container, started once, and one outcome, or no
// task at all.
func TestKilledAtAnyMoment(t *testing.T) {
	s := newSite(t, shared)
	s.must("run", busybox, "true") // the data directory is there
	killed, before := 0, map[string]bool{s.tasks()[0].ID: true}
	for i := range 24 {
		began := time.Now().Add(-time.Second)
		cmd := s.command("run", busybox, "sh", "-c", "echo ran; sleep 0.3; exit 7")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration(i) * 12 * time.Millisecond
		if i >= 16 {
			moment = time.Duration(i-12) * 60 * time.Millisecond
		}
		timer := time.AfterFunc(moment, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		timer.Stop()
		if cmd.ProcessState.ExitCode() == -1 {
			killed++
		}
		for _, task := range s.tasks() {
			if before[task.ID] {
				continue
			}
			before[task.ID] = true
			if r := s.berth("task", "wait", task.ID); r.code != 7 {
				t.Errorf("killed after %s: wait ended with %d\n%s", moment, r.code, r.stderr)
			}
			if got := s.must("task", "logs", task.ID); got != "ran\n" {
				t.Errorf("killed after %s: the log is %q", moment, got)
			}
			if created, started := ledger(t, shared, began, task.ID); created != 1 || started != 1 {
				t.Errorf("killed after %s: %d containers, started %d times", moment, created, started)
			}
		}
	}
	if killed < 12 {
		t.Errorf("only %d of 24 were killed before they ended: the moments are too late", killed)
	}
	s.clean()
}

func TestTasksGoOnWhenTheEngineIsBack(t *testing.T) {
	engine := ownEngine(t)
	s := newSite(t, engine)
	id := s.detach(busybox, "sh", "-c", "sleep 600")
	waitFor(t, "it runs", 30*time.Second, func() bool { return s.task(id).State == berth.StateRunning })
	engine.stop(syscall.SIGTERM)
	if got := s.must("infra", "list"); !strings.Contains(got, "unreachable") {
		t.Errorf("while it is away:\n%s", got)
	}
	task := s.task(id)
	if task.State != berth.StateRunning || task.Stale == nil {
		t.Errorf("while it is away the task is %s, stale %v", task.State, task.Stale)
	}
	waiting := s.command("task", "wait", id)
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	if err := engine.start(); err != nil {
		t.Fatal(err)
	}
	_ = waiting.Wait() // dockerd ends what runs when it ends
	if task = s.task(id); !task.State.Terminal() || task.State == berth.StateLost {
		t.Errorf("afterwards the task is %s", task.State)
	}
	if r := s.berth("run", busybox, "echo", "again"); r.code != 0 || r.stdout != "again\n" {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}

func TestAContainerRemovedByAnotherHandIsLost(t *testing.T) {
	s := newSite(t, shared)
	id := s.detach(busybox, "sleep", "600")
	waitFor(t, "it runs", 30*time.Second, func() bool { return s.task(id).State == berth.StateRunning })
	if _, err := shared.api.ContainerRemove(t.Context(), *s.task(id).Pod, client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r := s.berth("task", "wait", id)
	if task := s.task(id); task.State != berth.StateLost || task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseDeletedExternally || r.code != berth.ExitNone {
		t.Errorf("exit %d, task %s, %+v\n%s", r.code, task.State, task.Diagnosis, r.stderr)
	}
}
