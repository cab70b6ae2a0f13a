package workflow

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/berth-run/berth"
)

func gather(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var list starlark.Iterable
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &list); err != nil {
		return nil, err
	}
	var futures []*Future
	for value := range starlark.Elements(list) {
		f, ok := value.(*Future)
		if !ok {
			return nil, fmt.Errorf("gather takes a list of futures, and there is a %s in it", value.Type())
		}
		futures = append(futures, f)
	}
	return values(futures)
}

// tryCall calls a function and gives a task's failure as a value.
func (e *run) tryCall(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("%s takes a function and its arguments, such as try_call(text.count, part = \"x\")", b.Name())
	}
	value, err := starlark.Call(thread, args[0], args[1:], kwargs)
	var failure *berth.CallFailure
	switch {
	case err == nil:
		failure = nil
	case !errors.As(err, &failure):
		return nil, err
	default:
		value = starlark.None
	}
	result := starlark.StringDict{"ok": starlark.Bool(failure == nil), "value": value, "error": starlark.None, "cause": starlark.None, "exit_code": starlark.None}
	if failure != nil {
		if e.Handled != nil {
			e.Handled(failure.Call)
		}
		result["error"] = starlark.String(failure.Message)
		if failure.Diagnosis != nil {
			result["cause"] = starlark.String(failure.Diagnosis.Cause)
		}
		if failure.ExitCode != nil {
			result["exit_code"] = starlark.MakeInt(*failure.ExitCode)
		}
	}
	return starlarkstruct.FromStringDict(starlark.String("outcome"), result), nil
}

func (e *run) now(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 0); err != nil {
		return nil, err
	}
	future, err := e.start(thread, Call{Kind: KindNow, Name: b.Name()}, nil, nil)
	if err != nil {
		return nil, err
	}
	return future.result()
}

func (e *run) sleep(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var value starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &value); err != nil {
		return nil, err
	}
	call := Call{Kind: KindSleep, Name: b.Name()}
	seconds, isNumber := starlark.AsFloat(value)
	words, isText := starlark.AsString(value)
	var err error
	switch {
	case isNumber && seconds >= 0 && seconds < 1e9:
		call.Sleep = time.Duration(seconds * float64(time.Second))
	case isText:
		call.Sleep, err = time.ParseDuration(words)
		isText = err == nil && call.Sleep >= 0
		fallthrough
	default:
		if !isText {
			return nil, fmt.Errorf("sleep takes seconds, or a duration such as \"10m\", have %s", shortest(value.String()))
		}
	}
	future, err := e.start(thread, call, nil, nil)
	if err != nil {
		return nil, err
	}
	return future.result()
}

// path is where in the program a call is made: the functions that are open, with
// the file of those that the main one loads.
func (e *run) path(stack starlark.CallStack) string {
	var names []string
	for _, f := range stack {
		switch {
		case f.Pos.Line == 0: // built in
		case f.Pos.Filename() == e.Program.Main:
			names = append(names, f.Name)
		default:
			names = append(names, f.Pos.Filename()+"."+f.Name)
		}
	}
	return strings.Join(names, "/")
}
