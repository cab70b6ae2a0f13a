package berth

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// RunState is how a run stands.
type RunState string

const (
	RunRunning   RunState = "running" // it goes on, or will as soon as somebody can go on with it
	RunSucceeded RunState = "succeeded"
	RunFailed    RunState = "failed"
	RunCancelled RunState = "cancelled"
)

// RunStates are all states.
var RunStates = []RunState{RunRunning, RunSucceeded, RunFailed, RunCancelled}

// Terminal reports whether a run in this state has ended. One that did not end
// well may be resumed.
func (s RunState) Terminal() bool { return s != RunRunning }

// OnError says what becomes of the other calls of a run when its program fails.
type OnError string

const (
	OnErrorFinish OnError = "finish" // they go on, and the run ends after them
	OnErrorCancel OnError = "cancel"
)

// Run is one execution of a workflow. Its JSON form is the contract of -o json.
type Run struct {
	ID             string                     `json:"id"`
	Workflow       string                     `json:"workflow"` // file of the program
	State          RunState                   `json:"state"`
	Reason         *string                    `json:"reason"`         // one line: why it did not end well, or what it waits for
	On             string                     `json:"on"`             // where calls run that name no place; empty: as any task
	Infrastructure string                     `json:"infrastructure"` // that it belongs to: who reconciles it executes the run
	Arguments      map[string]json.RawMessage `json:"arguments"`
	OnError        OnError                    `json:"onError"`
	Limits         RunLimits                  `json:"limits"`
	Packages       []RunPackage               `json:"packages"` // that it has fixed
	Calls          map[CallState]int          `json:"calls"`    // how many are in each state; every state is there
	Result         json.RawMessage            `json:"result"`
	Error          *RunError                  `json:"error"`
	Resumed        int                        `json:"resumed"`   // how often
	ResumedAt      *time.Time                 `json:"resumedAt"` // the last time
	Diverged       *string                    `json:"diverged"`  // where an edited program went another way than before
	CreatedAt      time.Time                  `json:"createdAt"`
	FinishedAt     *time.Time                 `json:"finishedAt"`
	CancelledAt    *time.Time                 `json:"cancelRequestedAt"`
	Owner          string                     `json:"owner"`
}

// RunLimits bound what the program of a run does. Zero values are the defaults.
type RunLimits struct {
	Steps   int64         `json:"steps,omitempty"`   // of the interpreter
	Timeout time.Duration `json:"timeout,omitempty"` // of the run, waiting included
}

// RunPackage is a package as a run uses it.
type RunPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// RunError is how the program of a run failed.
type RunError struct {
	Message string       `json:"message"`
	Stack   []Frame      `json:"stack"` // the outermost first
	Call    *CallFailure `json:"call"`  // that failed it
}

// Error has the stack as Python shows it.
func (e *RunError) Error() string {
	var out strings.Builder
	for _, f := range e.Stack {
		fmt.Fprintf(&out, "%s:%d:%d: in %s\n", f.File, f.Line, f.Column, f.Function)
	}
	return out.String() + e.Message
}

// Frame is a place of a program.
type Frame struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
}

// CallState is how a call of a run stands.
type CallState string

const (
	CallRunning   CallState = "running" // its task has been submitted, or it sleeps
	CallSucceeded CallState = "succeeded"
	CallFailed    CallState = "failed"
	CallCancelled CallState = "cancelled"
	CallPrinted   CallState = "printed" // no call: what the program printed there
)

// CallStates are all states of calls, in the order of a call's life.
var CallStates = []CallState{CallRunning, CallSucceeded, CallFailed, CallCancelled}

// Ended reports whether a call in this state has ended.
func (s CallState) Ended() bool { return s != CallRunning }

// RunCall is one call of a run that was begun.
type RunCall struct {
	Seq            int64           `json:"seq"`  // in the order in which they began
	Key            string          `json:"key"`  // the same each time that the run is replayed
	Kind           string          `json:"kind"` // function, run, sleep or now
	Name           string          `json:"name"` // of what is called
	Label          *string         `json:"label"`
	At             string          `json:"at"` // FILE:LINE:COLUMN
	State          CallState       `json:"state"`
	Task           *string         `json:"task"`
	TaskState      *TaskState      `json:"taskState"`
	Infrastructure *string         `json:"infrastructure"`
	Reason         *string         `json:"reason"` // why it failed, or what its task waits for
	Cause          *Cause          `json:"cause"`  // of its task's diagnosis
	Cached         *string         `json:"cached"` // the task of an earlier run that answers
	BeganAt        time.Time       `json:"beganAt"`
	EndedAt        *time.Time      `json:"endedAt"`
	Needs          []string        `json:"needs"` // keys of calls whose futures are among its arguments
	Result         json.RawMessage `json:"result"`
	Failure        *CallFailure    `json:"failure"`

	Digest     string `json:"digest"`     // of what is called, and its arguments
	Generation int    `json:"generation"` // how often the run had been resumed when it began
	Handled    bool   `json:"handled"`    // the program took its failure as a value
}

// CallFailure is how a call failed. Programs see it as the error of the call.
type CallFailure struct {
	Call      string     `json:"call"` // its key
	Name      string     `json:"name"` // of what was called
	Task      string     `json:"task,omitempty"`
	Message   string     `json:"message"`
	ExitCode  *int       `json:"exitCode,omitempty"`
	Diagnosis *Diagnosis `json:"diagnosis,omitempty"`
}

func (f *CallFailure) Error() string { return f.Name + " failed: " + f.Message }

// runPrefix begins the ids of runs, and of nothing else.
const runPrefix = "r-"

// NewRunID makes the id of a run from one that is unique.
func NewRunID(unique string) string { return runPrefix + unique }

// IsRunID tells the id of a run from that of a task or an array.
func IsRunID(id string) bool { return strings.HasPrefix(id, runPrefix) }

// NoSuchRun is the error for an id that no run has.
func NoSuchRun(id string) error {
	return Errorf(CodeNotFound, "there is no run %s; berth workflow list shows those that there are", id)
}

// LabelRun is the label of tasks that are calls of a run: its id.
const LabelRun = "berth.run/run"

// WorkflowSource is the program of a workflow: its files by their paths, with
// slashes, and which of them is begun with.
type WorkflowSource struct {
	Main  string            `json:"main"`
	Files map[string][]byte `json:"files"`
}

// RunSubmission asks for a run.
type RunSubmission struct {
	Key            string                     `json:"key,omitempty"` // idempotency key; one is made when it is empty
	Source         WorkflowSource             `json:"source"`
	Arguments      map[string]json.RawMessage `json:"arguments"`
	On             string                     `json:"on"`             // an infrastructure, or labels as [ParseOn] reads them
	Infrastructure string                     `json:"infrastructure"` // that it belongs to; empty: the default, or one that On may mean
	OnError        OnError                    `json:"onError"`        // empty: OnErrorFinish
	Limits         RunLimits                  `json:"limits"`
}

// RunResumption asks for a run to go on after it ended in another way than well.
type RunResumption struct {
	Key    string
	ID     string
	Source *WorkflowSource // an edited program; nil: as it is
}

// RunQuery selects runs, newest first.
type RunQuery struct {
	State RunState // empty: any
	Owner string   // empty: all that the caller may see
	Limit int      // at most this many; 0 means 100
	After string   // id of the last run of the page before
}

// RunPage is one page of runs.
type RunPage struct {
	Runs []Run
	Next string // After of the next page; empty at the end
}

// ProcessExitCode is the exit code of a command that stands for this run.
func (r *Run) ProcessExitCode() int {
	switch r.State {
	case RunSucceeded:
		return 0
	case RunCancelled:
		return ExitCancelled
	}
	return 1
}

// RunRecord is a run as it is stored, with what nobody is shown.
type RunRecord struct {
	Run       Run
	Key       string
	ResumeKey string // of the last resumption
	Caller    Caller // whose run it is: its calls are submitted in their name
	Source    WorkflowSource
	Packages  []Package // that its program uses
}
