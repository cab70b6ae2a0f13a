package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"go.starlark.net/starlark"

	"github.com/berth-run/berth"
)

// begin makes a call, which runs once its dependencies have ended. Slots bound
// how many of a map do.
func (f *function) begin(thread *starlark.Thread, given map[string]starlark.Value, options Options, slots chan struct{}) (*Future, error) {
	call := Call{Kind: KindRun, Name: f.Name(), Options: options}
	if f.fn != nil {
		call.Kind, call.Package, call.Version, call.Image, call.Function = KindFunction, f.pkg.Name, f.pkg.Version, f.pkg.Digest, f.fn.Name
	}
	var needs []*Future
	for _, name := range sortedKeys(given) {
		_, err := encode(given[name], func(needed *Future) (json.RawMessage, error) {
			needs = append(needs, needed)
			return json.RawMessage("null"), nil
		})
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", name, err)
		}
	}
	ready := func(call *Call) error { return f.fill(call, given) }
	if len(needs) == 0 {
		if err := f.fill(&call, given); err != nil { // what is wrong is told where it is written
			return nil, err
		}
		ready = nil
	}
	call.Digest = digest(&call, given)
	for _, needed := range needs {
		call.Needs = append(call.Needs, needed.key)
	}
	return f.run.start(thread, call, needs, &later{ready, slots})
}

// later is what happens between a call's begin and its task.
type later struct {
	ready func(*Call) error // once its dependencies have ended; nil: all is there
	slots chan struct{}     // nil: as many as there are
}

// digest is that of what is called with which arguments, a future by its call.
func digest(call *Call, given map[string]starlark.Value) string {
	hash := sha256.New()
	fmt.Fprintf(hash, "%s\n%s\n%s\n", call.Kind, call.Image, call.Name)
	for _, name := range sortedKeys(given) {
		text, err := encode(given[name], func(f *Future) (json.RawMessage, error) {
			return json.RawMessage(`{"$call":` + strconv.Quote(f.key) + `}`), nil
		})
		if err != nil {
			text = nil // it was encoded before
		}
		fmt.Fprintf(hash, "%s=%s\n", name, text)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// fill gives a call its arguments, whose futures have ended, and checks them.
func (f *function) fill(call *Call, given map[string]starlark.Value) error {
	arguments := make(map[string]json.RawMessage, len(given))
	for name, value := range given {
		text, err := encode(value, func(needed *Future) (json.RawMessage, error) { return needed.value, nil })
		if err != nil {
			return fmt.Errorf("argument %s: %w", name, err)
		}
		arguments[name] = text
	}
	var err error
	if f.fn != nil {
		call.Arguments, call.Secrets, err = f.pkg.Arguments(f.fn.Name, arguments)
		return err
	}
	return fillRun(call, arguments)
}

// fillRun gives a plain task what it runs.
func fillRun(call *Call, arguments map[string]json.RawMessage) error {
	if arguments["image"] == nil {
		return errors.New(runWithout)
	}
	for name, to := range map[string]any{"image": &call.Image, "args": &call.Args, "env": &call.Env} {
		if value, ok := arguments[name]; ok && json.Unmarshal(value, to) != nil {
			want := map[string]string{"image": "the name of an image", "args": "a list of texts", "env": "a dict of texts"}[name]
			return fmt.Errorf("%s of run is %s, have %s", name, want, shortest(string(value)))
		}
	}
	return berth.ValidateImage(call.Image)
}

// answered is done from the start, for all calls that a history answers.
var answered = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// start takes a call from the history, or has it done.
func (e *run) start(thread *starlark.Thread, call Call, needs []*Future, l *later) (*Future, error) {
	if len(e.futures) == e.limits.Calls {
		return nil, fmt.Errorf("the program makes more than %d calls: is there a loop without an end?", e.limits.Calls)
	}
	stack := thread.CallStack()
	place := e.path(stack) + ":" + call.Name
	e.counts[place]++
	call.Key = place + "#" + strconv.Itoa(e.counts[place])
	for i := len(stack) - 1; i >= 0 && call.At == ""; i-- {
		if pos := stack[i].Pos; pos.Line > 0 {
			call.At = pos.String()
		}
	}
	if call.Digest == "" {
		call.Digest = digest(&call, nil)
	}
	future := &Future{run: e, key: call.Key, kind: call.Kind, name: call.Name}
	if record, ok := e.History[call.Key]; ok {
		if record.Digest == call.Digest {
			future.value, future.failure, future.done = record.Value, record.Failure, answered
			e.futures = append(e.futures, future)
			return future, nil
		}
		diverged := &Diverged{call.Key, call.At}
		if e.Edited == nil {
			return nil, diverged
		}
		e.Edited(diverged)
	}
	future.done = make(chan struct{})
	e.futures = append(e.futures, future)
	e.calls.Go(func() {
		defer close(future.done)
		future.value, future.failure, future.trouble = e.do(call, needs, l)
	})
	return future, nil
}

// do waits until a call can run, and has it done.
func (e *run) do(call Call, needs []*Future, l *later) (json.RawMessage, *berth.CallFailure, error) {
	for _, needed := range needs {
		if err := needed.wait(); err != nil {
			return nil, nil, err
		}
		if needed.failure != nil {
			return nil, &berth.CallFailure{Call: call.Key, Name: call.Name, Message: "it was not run, as what it needs failed: " + needed.failure.Error(), Diagnosis: needed.failure.Diagnosis, ExitCode: needed.failure.ExitCode}, nil
		}
	}
	if l != nil && l.ready != nil {
		if err := l.ready(&call); err != nil {
			return nil, &berth.CallFailure{Call: call.Key, Name: call.Name, Message: err.Error()}, nil
		}
	}
	if l != nil && l.slots != nil {
		select {
		case l.slots <- struct{}{}:
			defer func() { <-l.slots }()
		case <-e.ctx.Done():
			return nil, nil, e.ended()
		}
	}
	value, failure, err := e.Host.Do(e.ctx, call)
	if cause := e.ended(); err != nil && cause != nil {
		err = cause
	}
	if failure != nil {
		failure.Call, failure.Name = call.Key, call.Name
	}
	return value, failure, err
}
