package let

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// runSteps runs steps one after the other. The first failure that is not to be
// ignored ends the task: what comes later is skipped, and can't hide it.
func runSteps(order *agent.Order, environ []string, p *processes, r *reporter) *agent.Completion {
	c := &agent.Completion{}
	for i := range order.Steps {
		c.Steps = append(c.Steps, berth.StepStatus{Name: order.Steps[i].Name, State: berth.StepPending})
	}
	stdout, err := newOutlet(r.log.stdout, nil)
	if err != nil {
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}}
	}
	defer stdout.close()
	stderr, err := newOutlet(r.log.stderr, nil)
	if err != nil {
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}}
	}
	defer stderr.close()
	for i := range order.Steps {
		step, status := &order.Steps[i], &c.Steps[i]
		if c.ExitCode != 0 || c.Fault != nil || p.stopped() {
			status.State = berth.StepSkipped
			continue
		}
		now := time.Now().UTC()
		status.State, status.StartedAt = berth.StepRunning, &now
		r.tellStep(berth.EventStepStarted, i, *status)
		r.mark(i + 1)
		code, fault := runStep(step, environ, p, stdout.file, stderr.file)
		stdout.settle() // what it wrote is of this step, also where what it left behind goes on writing
		stderr.settle()
		ended := time.Now().UTC()
		status.State, status.FinishedAt, status.ExitCode = berth.StepSucceeded, &ended, &code
		if code != 0 {
			status.State = berth.StepFailed
			if fault != nil {
				status.Reason = fault.Summary
			}
			if status.Ignored = step.IgnoreFailure && !p.stopped(); !status.Ignored {
				c.ExitCode, c.Fault = code, stepFault(i, len(order.Steps), step.Name, code, fault)
				c.Deferred = code == 128+int(syscall.SIGKILL) && fault == nil
			}
		}
		r.tellStep(berth.EventStepFinished, i, *status)
	}
	r.mark(0)
	if p.stopped() && c.ExitCode == 0 {
		c.ExitCode = 128 + int(syscall.SIGTERM)
	}
	return c
}

// runStep runs one step.
func runStep(step *berth.Step, environ []string, p *processes, stdout, stderr *os.File) (int, *agent.Fault) {
	words := step.Command
	if step.Run != "" {
		words = []string{"sh", "-ec", step.Run}
	}
	env := environ
	for _, v := range step.Env {
		env = append(env[:len(env):len(env)], v.Name+"="+v.Value)
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return exitAgent, &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}
	}
	defer nothing.Close()
	started, err := p.start(words, dir, env, []*os.File{nothing, stdout, stderr})
	var cannot *startError
	if errors.As(err, &cannot) {
		fault := &agent.Fault{Cause: cannot.cause, Summary: cannot.text}
		if step.Run != "" && cannot.cause == berth.CauseCommandNotFound {
			fault.Summary = "the image has no shell (sh), which a step with run needs"
			fault.Remedy = "write the step as command: [PROGRAM, ARG...], or use an image with a shell"
		}
		fmt.Fprintln(stderr, "berthlet: "+fault.Summary)
		return cannot.code, fault
	}
	if err != nil {
		return exitAgent, &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}
	}
	var over <-chan time.Time
	if step.Timeout > 0 {
		timer := time.NewTimer(step.Timeout)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case status := <-started.ended:
		return exitCode(status), nil
	case <-over:
	}
	p.killGroup(started.pid, syscall.SIGTERM)
	select {
	case <-started.ended:
	case <-time.After(killAfter):
		p.killGroup(started.pid, syscall.SIGKILL)
		<-started.ended
	}
	// The shell of a script may end before what it started does, which the next
	// step, where the failure is ignored, is not to run beside.
	p.killGroup(started.pid, syscall.SIGKILL)
	return berth.ExitTimedOut, &agent.Fault{
		Cause: berth.CauseTimedOut, Summary: fmt.Sprintf("it was ended after its timeout of %s", step.Timeout),
		Remedy: "give the step a longer timeout, or find out what it waits for: berth task logs --step " + step.Name + " {task}",
	}
}

// stepFault says which step ended the task, and how.
func stepFault(i, of int, name string, code int, why *agent.Fault) *agent.Fault {
	where := fmt.Sprintf("Step %s (%d of %d) failed", name, i+1, of)
	if why == nil {
		f := &agent.Fault{Cause: berth.CauseExitedNonZero, Summary: fmt.Sprintf("%s with exit code %d.", where, code)}
		if code > 128 {
			f.Cause, f.Summary = berth.CauseSignalled, fmt.Sprintf("%s: it was ended by signal %d, exit code %d.", where, code-128, code)
		}
		f.Remedy = "look at what it wrote last: berth task logs --step " + name + " {task}"
		return f
	}
	f := *why
	f.Summary = where + ": " + f.Summary + "."
	return &f
}
