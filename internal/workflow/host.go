package workflow

import (
	"context"
	"encoding/json"
	"fmt"
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
	Name   string   // of what is called: text.count, run, sleep
	Digest string   // of what is called and its arguments, a future by its call; options are not part of it
	At     string   // FILE:LINE:COLUMN
	Needs  []string // keys of the calls whose futures are among its arguments

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
	Do(ctx context.Context, call Call) (json.RawMessage, *berth.CallFailure, error)
}

// Record is a call that has ended.
type Record struct {
	Digest  string
	Value   json.RawMessage
	Failure *berth.CallFailure
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
