package drivertest

import (
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func outcome(t *testing.T, h Harness) {
	tests := []struct {
		name         string
		spec         berth.TaskSpec
		code         string
		cause        berth.Cause
		neverStarted bool
	}{
		{name: "success", spec: berth.TaskSpec{Args: []string{"true"}}, code: "0"},
		{name: "an exit code", spec: berth.TaskSpec{Args: []string{"sh", "-c", "exit 3"}}, code: "3", cause: berth.CauseExitedNonZero},
		{name: "an exit code that a runtime may mean something by", spec: berth.TaskSpec{Args: []string{"sh", "-c", "exit 127"}}, code: "127", cause: berth.CauseExitedNonZero},
		{name: "a signal", spec: berth.TaskSpec{Args: []string{"sh", "-c", `sh -c 'kill -SEGV $$'; exit $?`}}, code: "139", cause: berth.CauseSignalled},
		{name: "command not found", spec: berth.TaskSpec{Args: []string{"no-such-command"}}, code: "127", cause: berth.CauseCommandNotFound, neverStarted: true},
		{name: "command is a directory", spec: berth.TaskSpec{Args: []string{"/bin"}}, code: "126", cause: berth.CauseCommandNotExecutable, neverStarted: true},
		{name: "out of memory", spec: berth.TaskSpec{Memory: "32Mi", Args: []string{"sh", "-c", `x=aaaaaaaa; while true; do x=$x$x; done`}}, code: "137", cause: berth.CauseOOMKilled},
	}
	s := begin(t, h)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &trial{t, h, s.instance, s.driver, s.sink}
			o := s.run(s.order(test.spec))
			if code(o.Outcome) != test.code || cause(o.Outcome) != test.cause || o.Outcome.Unknown || o.Outcome.ByCluster {
				t.Errorf("exit code %s, want %s; %+v %+v", code(o.Outcome), test.code, o.Outcome, o.Outcome.Diagnosis)
			}
			if o.Outcome.NeverStarted != test.neverStarted {
				t.Errorf("never started: %t", o.Outcome.NeverStarted)
			}
			if !test.neverStarted && (o.StartedAt.IsZero() || o.EndedAt.Before(o.StartedAt)) {
				t.Errorf("started %v, ended %v", o.StartedAt, o.EndedAt)
			}
			if o.Node == "" || !test.neverStarted && (o.ImageID == "" || !o.Pulled) {
				t.Errorf("observed as %+v", o)
			}
			if d := o.Outcome.Diagnosis; d != nil && (d.Summary == "" || d.Remedy.Text == "" || len(d.Evidence) == 0) {
				t.Errorf("diagnosis %+v", d)
			}
		})
	}

	t.Run("over its time", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("trap 'echo stopped; exit 0' TERM; echo begun; while true; do sleep 0.1; done")
		order.Spec.Timeout = 3 * time.Second
		o := s.run(order)
		if cause(o.Outcome) != berth.CauseTimedOut {
			t.Errorf("outcome %+v", o.Outcome)
		}
		if out := s.output(order); !strings.HasSuffix(out, "begun\nstopped\n") {
			t.Errorf("output %q", out)
		}
	})

	t.Run("within its time", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("exit 5")
		order.Spec.Timeout = time.Hour
		if o := s.run(order); code(o.Outcome) != "5" || cause(o.Outcome) != berth.CauseExitedNonZero {
			t.Errorf("outcome %+v", o.Outcome)
		}
	})

	t.Run("over its time while nobody watched", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("trap 'exit 0' TERM; while true; do sleep 0.1; done")
		order.Spec.Timeout = 3 * time.Second
		s.create(order)
		s.running(order)
		h.Link.Cut()
		s.sink.until(t, "it is noticed", func(v *view) bool { return len(v.lost) > 0 })
		<-time.After(4 * time.Second) // of the task's own time
		h.Link.Mend()
		if o := s.end(order); cause(o.Outcome) != berth.CauseTimedOut {
			t.Errorf("outcome %+v", o.Outcome)
		}
	})
}
