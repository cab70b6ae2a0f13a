package berth

import (
	"encoding/json"
	"time"
)

// TaskState is where a task stands: queued → launching → running → one of the
// four terminal states, exactly once.
type TaskState string

const (
	StateQueued    TaskState = "queued"    // stored, not yet admitted
	StateLaunching TaskState = "launching" // the attempt's pod exists or may exist
	StateRunning   TaskState = "running"   // the main container runs
	StateSucceeded TaskState = "succeeded"
	StateFailed    TaskState = "failed"
	StateCancelled TaskState = "cancelled"
	StateLost      TaskState = "lost" // the cluster destroyed the outcome before anyone could see it
)

// TaskStates are all states, in the order of a task's life.
var TaskStates = []TaskState{StateQueued, StateLaunching, StateRunning, StateSucceeded, StateFailed, StateCancelled, StateLost}

// Terminal reports whether a task in this state has ended.
func (s TaskState) Terminal() bool {
	switch s {
	case StateSucceeded, StateFailed, StateCancelled, StateLost:
		return true
	}
	return false
}

// PullPolicy says when a node pulls the image.
type PullPolicy string

const (
	PullDefault PullPolicy = ""        // missing; always for the tag latest
	PullMissing PullPolicy = "missing" // only if the node doesn't have it
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// MaxPriority is the greatest priority of a task; its negative is the least.
const MaxPriority = 1000

// EnvVar is one environment variable.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TaskSpec is what a person asks for: one thing to run to its end.
type TaskSpec struct {
	Name             string            `json:"name,omitempty"` // for people; not unique
	Image            string            `json:"image"`
	Entrypoint       []string          `json:"entrypoint,omitempty"` // replaces the image's own
	Args             []string          `json:"args,omitempty"`
	Env              []EnvVar          `json:"env,omitempty"`
	User             string            `json:"user,omitempty"` // UID or UID:GID
	Infrastructure   string            `json:"infrastructure,omitempty"`
	Where            map[string]string `json:"where,omitempty"`  // labels that its infrastructure has to have, where none is named
	CPU              Quantity          `json:"cpu,omitempty"`    // request and limit
	Memory           Quantity          `json:"memory,omitempty"` // request and limit
	GPU              int               `json:"gpu,omitempty"`
	EphemeralStorage Quantity          `json:"ephemeralStorage,omitempty"`
	Timeout          time.Duration     `json:"timeout,omitempty"` // of an attempt, from the pod's start on its node
	Retries          int               `json:"retries,omitempty"` // of attempts that had started
	Idempotent       bool              `json:"idempotent,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Pull             PullPolicy        `json:"pull,omitempty"`
	Priority         int               `json:"priority,omitempty"` // among the tasks of its owner; greater ones are let through first

	// Steps, or a Call, are run by the agent in place of the image's command.
	// With neither it is a plain task. A Call needs no Image.
	Steps []Step `json:"steps,omitempty"`
	Call  *Call  `json:"call,omitempty"`

	// Data has the agent serve the shared filesystem. Berth alone submits it.
	Data *DataServer `json:"data,omitempty"`

	// Cluster is what the task is to a compute cluster. Berth alone submits it.
	Cluster *ClusterMember `json:"cluster,omitempty"`
}

// Agent reports whether the agent runs in the task's container.
func (s *TaskSpec) Agent() bool { return len(s.Steps) > 0 || s.Call != nil || s.Data != nil }

// Submission is a TaskSpec with the key that makes submitting it twice the
// same as submitting it once.
type Submission struct {
	Key  string // idempotency key; one is made when it is empty
	Spec TaskSpec

	// NoPreflight stores the task without asking the infrastructure before
	// whether it would take it.
	NoPreflight bool

	// Among are the infrastructures that it may move to while it was never
	// tried. It is set where its place is chosen, and not sent.
	Among []string
}

// Task is one thing to run to its end, and what became of it. Its JSON form is
// the contract of -o json: absent values are null, times RFC 3339 in UTC.
type Task struct {
	ID             string          `json:"id"`
	Name           *string         `json:"name"`
	State          TaskState       `json:"state"`
	Infrastructure string          `json:"infrastructure"`
	Image          string          `json:"image"`
	Attempt        int             `json:"attempt"` // 0 before the first
	ExitCode       *int            `json:"exitCode"`
	Reason         *string         `json:"reason"` // one line: why it ended, or what it waits for
	Result         json.RawMessage `json:"result"`
	Steps          []StepStatus    `json:"steps"` // of the last attempt; empty for a task without steps
	Diagnosis      *Diagnosis      `json:"diagnosis"`
	CreatedAt      time.Time       `json:"createdAt"`
	StartedAt      *time.Time      `json:"startedAt"`  // of the last attempt's main container
	FinishedAt     *time.Time      `json:"finishedAt"` // of the task
	Usage          Usage           `json:"usage"`      // of the last attempt
	Owner          string          `json:"owner"`
	Pod            *string         `json:"pod"`  // of the last attempt
	Node           *string         `json:"node"` // of the last attempt
	CancelledAt    *time.Time      `json:"cancelRequestedAt"`
	Stale          *string         `json:"stale"`  // why what is said here may be out of date: the infrastructure can't be reached
	Array          *ArrayItem      `json:"array"`  // which task of which array it is
	Orphan         bool            `json:"orphan"` // found by its pod: the store did not know it
	Spec           TaskSpec        `json:"spec"`
}

// Waiting reports whether the task's program has not started yet.
func (t *Task) Waiting() bool { return t.State == StateQueued || t.State == StateLaunching }

// ProcessExitCode is the exit code of a command that stands for this task:
// the container's own, or one of the Exit constants.
func (t *Task) ProcessExitCode() int {
	switch {
	case t.State == StateCancelled:
		return ExitCancelled
	case t.Diagnosis != nil && t.Diagnosis.Cause == CauseTimedOut:
		return ExitTimedOut
	case t.State == StateLost || t.ExitCode == nil:
		if t.State == StateSucceeded {
			return 0
		}
		return ExitNone
	case t.State == StateFailed && *t.ExitCode == 0:
		return ExitNone // the program ended well, and what it should have given is not there
	}
	return *t.ExitCode
}

// TaskQuery selects tasks, newest first.
type TaskQuery struct {
	States         []TaskState
	Infrastructure string
	Name           string
	Labels         map[string]string
	Owner          string // empty: all that the caller may see
	Array          string // id of an array
	Limit          int    // at most this many; 0 means 100
	After          string // id of the last task of the page before
}

// TaskPage is one page of tasks.
type TaskPage struct {
	Tasks []Task
	Next  string // After of the next page; empty at the end
}
