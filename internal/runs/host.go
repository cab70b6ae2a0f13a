package runs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
	"github.com/berth-run/berth/internal/workflow"
)

// host does the calls of one run.
type host struct{ x *execution }

// Do does a call; one that a process before this has begun is not begun anew.
func (h *host) Do(ctx context.Context, c workflow.Call) (json.RawMessage, *berth.CallFailure, error) {
	begun := h.begin(&c)
	var value json.RawMessage
	var failure *berth.CallFailure
	var err error
	hit := false
	switch c.Kind {
	case workflow.KindNow:
		value, err = json.Marshal(time.Now().UTC())
	case workflow.KindSleep:
		if !sleep(ctx, time.Until(begun.BeganAt.Add(c.Sleep))) {
			return nil, nil, context.Cause(ctx)
		}
		value = json.RawMessage("null")
	default:
		if c.Options.Cache {
			value, failure, hit, err = h.cached(ctx, &c, begun)
		} else {
			value, failure, err = h.task(ctx, &c, begun)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	end := func() { h.ended(c.Key, value, failure) }
	if c.Kind == workflow.KindNow || hit {
		return value, nil, h.x.kept(ctx, end) // once it was told it is told again
	}
	h.x.note(end)
	return value, failure, nil
}

// begin notes that a call begins, or takes up one that has begun.
func (h *host) begin(c *workflow.Call) berth.RunCall {
	x := h.x
	var begun berth.RunCall
	x.note(func() {
		if before := x.calls[c.Key]; before != nil && !before.State.Ended() && before.Digest == c.Digest {
			begun = before.RunCall
			return
		}
		x.seq++
		made := &call{RunCall: berth.RunCall{
			Seq: x.seq, Key: c.Key, Kind: string(c.Kind), Name: c.Name, At: c.At, State: berth.CallRunning, BeganAt: time.Now().UTC(),
			Needs: append([]string{}, c.Needs...), Digest: c.Digest, Generation: x.run.Resumed,
		}}
		if c.Options.Name != "" {
			made.Label = &c.Options.Name
		}
		x.calls[c.Key] = made
		x.changed(made)
		begun = made.RunCall
	})
	return begun
}

func (h *host) ended(key string, value json.RawMessage, failure *berth.CallFailure) {
	c := h.x.calls[key]
	now := time.Now().UTC()
	c.EndedAt, c.Result, c.Reason = &now, value, nil
	h.x.findFiles(&c.RunCall)
	c.State = berth.CallSucceeded
	if failure != nil {
		failure.Call, failure.Name = c.Key, c.Name
		c.State, c.Failure, c.Reason = berth.CallFailed, failure, &failure.Message
		if c.TaskState != nil && *c.TaskState == berth.StateCancelled {
			c.State = berth.CallCancelled
		}
	}
	h.x.changed(c)
}

// task has a call done as a task. What its infrastructure would never take, and
// what is wrong with what is asked for, is a failure of the call; what may pass
// is tried again.
func (h *host) task(ctx context.Context, c *workflow.Call, begun berth.RunCall) (json.RawMessage, *berth.CallFailure, error) {
	x := h.x
	ctx = berth.WithCaller(ctx, x.caller)
	submission, err := h.submission(c, begun.Generation)
	if err != nil {
		return nil, &berth.CallFailure{Message: err.Error()}, nil
	}
	var task berth.Task
	for wait := pauses(ctx); ; {
		if err = h.bring(ctx, c, &submission.Spec); err == nil {
			task, err = x.tasks.SubmitTask(ctx, submission)
		}
		if err == nil {
			break
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, nil, cause
		}
		if berth.Lasting(err) {
			failure := &berth.CallFailure{Message: err.Error()}
			var told *berth.Error
			if errors.As(err, &told) {
				failure.Diagnosis = told.Diagnosis
			}
			return nil, failure, nil
		}
		reason := "it cannot be submitted at the moment: " + err.Error()
		x.note(func() { x.shown(x.calls[c.Key], &reason) })
		if !wait() {
			return nil, nil, context.Cause(ctx)
		}
	}
	crash.Point("runs.submitted")
	if err := h.watch(ctx, c.Key, &task); err != nil {
		return nil, nil, err
	}
	if task.State != berth.StateSucceeded {
		return nil, failed(&task), nil
	}
	if c.Kind == workflow.KindFunction {
		if len(task.Result) == 0 {
			return json.RawMessage("null"), nil, nil
		}
		return task.Result, nil, nil
	}
	value, err := h.output(ctx, &task)
	return value, nil, err
}

// submission is the task of a call.
func (h *host) submission(c *workflow.Call, generation int) (berth.Submission, error) {
	x := h.x
	o := &c.Options
	spec := berth.TaskSpec{
		Name: o.Name, CPU: o.CPU, Memory: o.Memory, Timeout: o.Timeout, Retries: o.Retries,
		Labels: map[string]string{berth.LabelRun: x.id},
	}
	var err error
	if spec.Infrastructure, spec.Where, err = berth.ParseOn(cmp.Or(o.On, x.run.On)); err != nil {
		return berth.Submission{}, err
	}
	if c.Kind == workflow.KindFunction {
		spec.Call = &berth.Call{Package: c.Package, Version: c.Version, Digest: c.Image, Function: c.Function, Arguments: c.Arguments, Secrets: c.Secrets}
	} else {
		spec.Image, spec.Args = c.Image, c.Args
		for _, name := range sortedKeys(c.Env) {
			spec.Env = append(spec.Env, berth.EnvVar{Name: name, Value: c.Env[name]})
		}
	}
	return berth.Submission{Key: x.id + "/" + strconv.Itoa(generation) + "/" + c.Key, Spec: spec}, nil
}

// watch waits until a task has ended, and shows how it stands meanwhile.
func (h *host) watch(ctx context.Context, key string, task *berth.Task) error {
	x := h.x
	for wait := pauses(ctx); ; {
		for now, err := range x.tasks.WatchTask(ctx, task.ID) {
			if err != nil {
				break
			}
			*task = now
			x.note(func() { shows(x.calls[key], task, x) })
			if task.State.Terminal() {
				return nil
			}
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if !wait() {
			return context.Cause(ctx)
		}
	}
}

// shown says what a call waits for, which is not stored. The caller holds mu.
func (x *execution) shown(c *call, reason *string) {
	x.version++
	c.version, c.Reason = x.version, reason
}

// shows takes over what a call's task says. That it has one is stored; the rest
// can be had of the task. The caller holds mu.
func shows(c *call, task *berth.Task, x *execution) {
	first := c.Task == nil
	state, infrastructure := task.State, task.Infrastructure
	c.Task, c.TaskState, c.Infrastructure, c.Reason, c.Cause = &task.ID, &state, &infrastructure, nil, nil
	switch d := task.Diagnosis; {
	case d != nil:
		reason, cause := d.Summary, d.Cause
		c.Reason, c.Cause = &reason, &cause
	case task.Waiting():
		c.Reason = task.Reason
	}
	if first {
		x.changed(c)
		return
	}
	x.version++
	c.version = x.version
}

// failed is how a call failed by its task.
func failed(task *berth.Task) *berth.CallFailure {
	f := &berth.CallFailure{Task: task.ID, ExitCode: task.ExitCode, Diagnosis: task.Diagnosis, Message: "its task " + task.ID + " was " + string(task.State)}
	if task.State == berth.StateFailed {
		f.Message = "its task " + task.ID + " failed"
	}
	switch {
	case task.Diagnosis != nil:
		f.Message += ": " + task.Diagnosis.Summary
	case task.Reason != nil:
		f.Message += ": " + *task.Reason
	}
	return f
}
