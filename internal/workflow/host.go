package workflow

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Kind is what a call asks for.
type Kind string

const (
	KindFunction Kind = "function" // of a package, as a task
	KindRun      Kind = "run"      // an image, as a plain task
	KindSleep    Kind = "sleep"    // nothing, until a time after it was first asked for
	KindNow      Kind = "now"      // the time at which it was first asked for
)

// Call is one call of a run. The key is the same each time the run is replayed:
// the functions that led to it, what is called, and how often that was called
// from there before.
type Call struct {
	Key    string
	Kind   Kind
	Name   string // of what is called: text.count, run, sleep
	Digest string // of what is called and its arguments, a future by its call; options are not part of it
	At     string // FILE:LINE:COLUMN

	Package, Version, Image string // Image: with its digest of a function, as it is written of a plain task
	Function                string
	Arguments               map[string]json.RawMessage // of a function, checked
	Secrets                 []string                   // those of them that are references
	Args                    []string                   // of a plain task
	Env                     map[string]string
	Sleep                   time.Duration

	Options Options
}

// Options are those of a call. Zero values: as for any task.
type Options struct {
	On      string
	CPU     berth.Quantity
	Memory  berth.Quantity
	Timeout time.Duration
	Retries int
	Cache   bool
	Name    string
}

// Host does what a run calls.
type Host interface {
	// Do has a call done and returns its value, or how it failed; once and for
	// all: for a key that was done or begun before it doesn't begin anew. It is
	// called from many goroutines. Trouble of the host itself is the error, with
	// which the run ends where it is, to be resumed.
	Do(ctx context.Context, call Call) (json.RawMessage, *Failure, error)
}

// Record is a call that has ended.
type Record struct {
	Digest  string
	Value   json.RawMessage
	Failure *Failure
}

// Failure is how a call failed. Programs see it as the error of the call.
type Failure struct {
	Call      string           `json:"call"` // its key
	Name      string           `json:"name"` // of what was called
	Task      string           `json:"task,omitempty"`
	Message   string           `json:"message"`
	ExitCode  *int             `json:"exitCode,omitempty"`
	Diagnosis *berth.Diagnosis `json:"diagnosis,omitempty"`
}

func (f *Failure) Error() string { return f.Name + " failed: " + f.Message }

// Frame is a place of a program.
type Frame struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
}

// Error is how a program failed.
type Error struct {
	Message string   `json:"message"`
	Stack   []Frame  `json:"stack"`             // the outermost first
	Failure *Failure `json:"failure,omitempty"` // of the call that failed it
}

// Error has the stack as Python shows it.
func (e *Error) Error() string {
	var out strings.Builder
	for _, f := range e.Stack {
		fmt.Fprintf(&out, "%s:%d:%d: in %s\n", f.File, f.Line, f.Column, f.Function)
	}
	return out.String() + e.Message
}

// Diverged says that a program is not the one that a history is of: a call that
// is in it has other arguments now.
type Diverged struct {
	Key string
	At  string
}

func (d *Diverged) Error() string {
	return fmt.Sprintf("%s: the call %s was made with other arguments before; up to here the program does what the run did", d.At, d.Key)
}
