package berth

import (
	"encoding/json"
	"time"
)

// Attempt is one try of a task: exactly one pod (or one Docker container).
type Attempt struct {
	Number     int       `json:"number"`
	Pod        string    `json:"pod"`                 // name, fixed before anything is created
	Candidate  int       `json:"candidate,omitempty"` // names that were taken by others before this one
	UID        string    `json:"uid,omitempty"`       // stored at first sight; never created again from then on
	IntendedAt time.Time `json:"intendedAt"`
	StartedAt  time.Time `json:"startedAt,omitzero"` // main container
	EndedAt    time.Time `json:"endedAt,omitzero"`
	EndSeen    time.Time `json:"endSeen,omitzero"` // when the container's own end was seen; an agent tells earlier
	Node       string    `json:"node,omitempty"`
	Address    string    `json:"address,omitempty"` // of its pod, for the pods of the same cluster
	ImageID    string    `json:"imageId,omitempty"`
	Pulling    bool      `json:"pulling,omitempty"`
	Pulled     bool      `json:"pulled,omitempty"`
	Outcome    *Outcome  `json:"outcome,omitempty"` // nil until it is known to have ended

	// GraceFrom and StallFrom are where start_timeout and the grace of a stall
	// count from. They move forward by the time that the cluster was out of
	// reach, so that grace periods stand still meanwhile.
	GraceFrom time.Time `json:"graceFrom,omitzero"`
	StallFrom time.Time `json:"stallFrom,omitzero"`
	Patience  Patience  `json:"patience,omitempty"`

	// Steps and AgentSeq are what the agent told: the state of each step, and
	// the number of its last event that was taken in.
	Steps    []StepStatus `json:"steps,omitempty"`
	AgentSeq int          `json:"agentSeq,omitempty"`

	// Usage is what it used, once it has ended; nil where nobody knows.
	Usage *AttemptUsage `json:"usage,omitempty"`

	// Network is what went through a proxy, once it has ended; nil where nobody knows.
	Network *NetworkUse `json:"network,omitempty"`

	Logs    LogState `json:"logs,omitempty"`
	Removed bool     `json:"removed,omitempty"` // no pod of it exists any more, or ever did
}

// MayHaveRun reports whether the attempt's program ran, or may have without
// anybody seeing it.
func (a *Attempt) MayHaveRun() bool {
	return !a.StartedAt.IsZero() || a.Outcome != nil && a.Outcome.Unknown
}

// LogState is how far the log of an attempt was kept.
type LogState string

const (
	LogsOpen       LogState = ""           // being followed, or not begun
	LogsComplete   LogState = "complete"   // all of it is stored
	LogsIncomplete LogState = "incomplete" // something is missing and can't be had
)

// Outcome is how an attempt ended.
type Outcome struct {
	ExitCode  *int       `json:"exitCode,omitempty"`
	Diagnosis *Diagnosis `json:"diagnosis,omitempty"` // nil on success
	Reason    string     `json:"reason,omitempty"`    // one line

	Result       json.RawMessage `json:"result,omitempty"`       // of a function that succeeded
	Steps        []StepStatus    `json:"steps,omitempty"`        // of a task with steps, where the agent told
	Usage        *AttemptUsage   `json:"usage,omitempty"`        // where the agent told
	Network      *NetworkUse     `json:"network,omitempty"`      // where there is a proxy
	NeverStarted bool            `json:"neverStarted,omitempty"` // the main container is known not to have run
	ByCluster    bool            `json:"byCluster,omitempty"`    // evicted, preempted, node lost: not the task's doing
	Unknown      bool            `json:"unknown,omitempty"`      // nobody saw how it ended
}

// Success reports whether the attempt ended well.
func (o *Outcome) Success() bool {
	return !o.Unknown && o.Diagnosis == nil && o.ExitCode != nil && *o.ExitCode == 0
}
