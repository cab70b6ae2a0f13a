package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	starlarkjson "go.starlark.net/lib/json"
	starlarkmath "go.starlark.net/lib/math"
	"go.starlark.net/starlark"

	"github.com/berth-run/berth"
)

// Limits bound what a program does. Zero values are the defaults.
type Limits struct {
	Steps uint64        // of the interpreter, from the program's begin; default 1e9, some minutes of one processor
	Calls int           // default 100,000
	Wall  time.Duration // how long the program may take, waiting included; default 7 days
	Spent time.Duration // of Wall, before this replay
}

func (l Limits) withDefaults() Limits {
	if l.Steps == 0 {
		l.Steps = 1e9
	}
	if l.Calls == 0 {
		l.Calls = 100_000
	}
	if l.Wall == 0 {
		l.Wall = 7 * 24 * time.Hour
	}
	return l
}

// Runner runs a program, or replays it as far as it got.
type Runner struct {
	Program   *Program
	Packages  Lookup // what the run has fixed: the same package each time
	Host      Host
	History   map[string]Record // calls that have ended, by key
	Arguments map[string]json.RawMessage
	Limits    Limits
	OnError   berth.OnError
	Print     func(text string) // nil: nowhere

	// Edited says that the program isn't the one that the history is of, and is
	// told where it goes another way: such a call is done anew. Nil: it is the
	// same program, and going another way ends the run.
	Edited func(*Diverged)

	// Handled is told of a call whose failure the program took as a value.
	Handled func(key string)
}

// run is one execution.
type run struct {
	*Runner
	ctx     context.Context
	limits  Limits
	modules map[string]starlark.StringDict
	counts  map[string]int // calls by what a key has but for the number
	futures []*Future
	calls   sync.WaitGroup
	cancel  context.CancelCauseFunc
}

// errTooLong ends a program that takes longer than it may.
type errTooLong struct{ after time.Duration }

func (e *errTooLong) Error() string {
	return fmt.Sprintf("the program has taken longer than %s, which is how long a run may take", e.after)
}

// Run runs the program to its end and returns the value of main. What the
// program does wrong, and a call that fails it, is an [*berth.RunError]; a program that
// is not the one of the history a [*Diverged]. Any other error is trouble of the
// host, or that of ctx: the run can go on from where it is.
func (r *Runner) Run(ctx context.Context) (json.RawMessage, error) {
	limits := r.Limits.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(limits.Wall-limits.Spent, func() { cancel(&errTooLong{limits.Wall}) })
	defer timer.Stop()
	e := &run{Runner: r, ctx: ctx, limits: limits, modules: map[string]starlark.StringDict{}, counts: map[string]int{}, cancel: cancel}
	value, err := e.program()
	var failed *berth.RunError
	if err != nil && (!errors.As(err, &failed) || r.OnError == berth.OnErrorCancel) {
		cancel(err)
	}
	e.calls.Wait()
	return value, e.outcome(err)
}

// outcome is the run's error once all calls have ended.
func (e *run) outcome(err error) error {
	var failed *berth.RunError
	var diverged *Diverged
	if err != nil && !errors.As(err, &failed) && !errors.As(err, &diverged) {
		return err
	}
	var long *errTooLong
	for _, f := range e.futures {
		switch {
		case errors.As(f.trouble, &long):
			if err == nil {
				err = &berth.RunError{Message: long.Error(), Stack: []berth.Frame{}}
			}
		case f.trouble != nil && (err == nil || e.OnError != berth.OnErrorCancel):
			return f.trouble
		case err == nil && f.failure != nil && !f.used:
			// Nobody asked for its value, and nobody would hear of it.
			err = &berth.RunError{Message: f.failure.Error(), Stack: []berth.Frame{}, Call: f.failure}
		}
	}
	return err
}

// ended is why calls are no longer waited for; nil while they are.
func (e *run) ended() error {
	return context.Cause(e.ctx)
}

// program runs the files and main.
func (e *run) program() (value json.RawMessage, err error) {
	thread := &starlark.Thread{
		Name: e.Program.Main,
		Load: e.load,
		Print: func(_ *starlark.Thread, text string) {
			if e.Print != nil {
				e.Print(text)
			}
		},
		OnMaxSteps: func(t *starlark.Thread) {
			t.Cancel(fmt.Sprintf("the program took more than %d steps: is there a loop without an end?", e.limits.Steps))
		},
	}
	thread.SetMaxExecutionSteps(e.limits.Steps)
	stop := context.AfterFunc(e.ctx, func() { thread.Cancel(e.ended().Error()) })
	defer stop()
	defer func() {
		if wrong := recover(); wrong != nil {
			m, ok := wrong.(misuse)
			if !ok {
				panic(wrong)
			}
			err = &berth.RunError{Message: string(m), Stack: frames(thread.CallStack())}
		}
	}()
	for _, name := range e.Program.order {
		program, err := compile(e.Program, name)
		if err != nil {
			return nil, &berth.RunError{Message: err.Error(), Stack: []berth.Frame{}}
		}
		globals, err := program.Init(thread, e.builtins())
		if err != nil {
			return nil, e.failed(err)
		}
		globals.Freeze()
		e.modules[name] = globals
	}
	main, ok := e.modules[e.Program.Main]["main"].(*starlark.Function)
	if !ok {
		return nil, &berth.RunError{Message: e.Program.Main + ": there is no function main, which is what a run calls: def main(...):", Stack: []berth.Frame{}}
	}
	arguments, err := e.arguments()
	if err != nil {
		return nil, &berth.RunError{Message: err.Error(), Stack: []berth.Frame{}}
	}
	result, err := starlark.Call(thread, main, nil, arguments)
	if err == nil {
		if f, ok := result.(*Future); ok {
			result, err = f.result()
		}
	}
	if err != nil {
		return nil, e.failed(err)
	}
	value, err = encode(result, nil)
	if err == nil && len(value) > berth.MaxResult {
		err = fmt.Errorf("it takes %d bytes, and at most %d MiB are possible: write large data to files", len(value), berth.MaxResult>>20)
	}
	if err != nil {
		return nil, &berth.RunError{Message: "the value of main: " + err.Error(), Stack: []berth.Frame{}}
	}
	return value, nil
}

// compile makes code of a file.
func compile(p *Program, name string) (*starlark.Program, error) {
	_, program, err := starlark.SourceProgramOptions(options, name, p.Files[name], isPredeclared)
	return program, err
}

// load gives a file the names of another, which ran before it.
func (e *run) load(thread *starlark.Thread, module string) (starlark.StringDict, error) {
	file := thread.CallFrame(0).Pos.Filename()
	return e.modules[e.Program.loads[file][module]], nil
}

func (e *run) builtins() starlark.StringDict {
	return starlark.StringDict{
		namePackage: starlark.NewBuiltin(namePackage, e.packageBuiltin),
		nameRun:     &function{run: e},
		"gather":    starlark.NewBuiltin("gather", gather),
		"try_call":  starlark.NewBuiltin("try_call", e.tryCall),
		"sleep":     starlark.NewBuiltin("sleep", e.sleep),
		"now":       starlark.NewBuiltin("now", e.now),
		"json":      starlarkjson.Module,
		"math":      starlarkmath.Module,
	}
}

// arguments are those of main.
func (e *run) arguments() ([]starlark.Tuple, error) {
	if err := e.Program.CheckArguments(e.Arguments); err != nil {
		return nil, err
	}
	var all []starlark.Tuple
	for _, name := range sortedKeys(e.Arguments) {
		value, err := decode(e.Arguments[name])
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", name, err)
		}
		all = append(all, starlark.Tuple{starlark.String(name), value})
	}
	return all, nil
}

// failed makes the error of a program from the interpreter's; trouble of the
// host stays what it is.
func (e *run) failed(err error) error {
	var long *errTooLong
	if cause := e.ended(); cause != nil && !errors.As(cause, &long) {
		return cause
	}
	for _, f := range e.futures {
		if long == nil && closed(f.done) && f.trouble != nil && errors.Is(err, f.trouble) {
			return f.trouble
		}
	}
	var diverged *Diverged
	if errors.As(err, &diverged) {
		return diverged
	}
	failed := &berth.RunError{Message: strings.TrimPrefix(err.Error(), "Starlark computation cancelled: "), Stack: []berth.Frame{}}
	var eval *starlark.EvalError
	if errors.As(err, &eval) {
		failed.Message = strings.TrimPrefix(eval.Msg, "Starlark computation cancelled: ")
		failed.Stack = frames(eval.CallStack)
	}
	errors.As(err, &failed.Call)
	return failed
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// frames are the places of a stack that are in the program.
func frames(stack starlark.CallStack) []berth.Frame {
	places := []berth.Frame{}
	for _, f := range stack {
		if f.Pos.Line > 0 {
			places = append(places, berth.Frame{Function: f.Name, File: f.Pos.Filename(), Line: int(f.Pos.Line), Column: int(f.Pos.Col)})
		}
	}
	return places
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
