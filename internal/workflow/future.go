package workflow

import (
	"encoding/json"
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/berth-run/berth"
)

// Future is the value of a call that was submitted, which may not be there yet.
type Future struct {
	run  *run
	key  string
	kind Kind
	name string // of what was called
	done chan struct{}

	// Set when done is closed.
	value   json.RawMessage
	failure *berth.CallFailure
	trouble error // of the host, not of the call

	used bool // its value was asked for, so that its failure was told
}

// misuse is what a program did to a future that no future takes. Starlark has
// no errors for that; it ends the run as a panic.
type misuse string

func (f *Future) misused(what string) misuse {
	return misuse(fmt.Sprintf("a future of %s %s: its value is .result()", f.name, what))
}

func (f *Future) String() string       { panic(f.misused("was made a text")) }
func (f *Future) Type() string         { return "future" }
func (f *Future) Freeze()              {}
func (f *Future) Truth() starlark.Bool { panic(f.misused("was asked whether it is true")) }
func (f *Future) Hash() (uint32, error) {
	return 0, fmt.Errorf("%s", f.misused("can't be the key of a dict"))
}

func (f *Future) CompareSameType(_ syntax.Token, _ starlark.Value, _ int) (bool, error) {
	return false, fmt.Errorf("%s", f.misused("was compared"))
}

func (f *Future) AttrNames() []string { return []string{"result"} }

func (f *Future) Attr(name string) (starlark.Value, error) {
	if name != "result" {
		return nil, nil
	}
	return starlark.NewBuiltin("result", func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 0); err != nil {
			return nil, err
		}
		return f.result()
	}), nil
}

// wait waits for the call's end; an error is that of the host.
func (f *Future) wait() error {
	select {
	case <-f.done:
		return f.trouble
	default:
	}
	select {
	case <-f.done:
		return f.trouble
	case <-f.run.ctx.Done():
		return f.run.ended()
	}
}

func (f *Future) result() (starlark.Value, error) {
	if err := f.wait(); err != nil {
		return nil, err
	}
	f.used = true
	if f.failure != nil {
		return nil, f.failure
	}
	value, err := decode(f.value)
	if err != nil || f.kind != KindRun {
		return value, err
	}
	return reliable(value)
}
