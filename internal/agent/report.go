package agent

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/berth-run/berth"
)

// Report is one callback: what happened since the last that was accepted.
type Report struct {
	Task    string  `json:"task"`
	Attempt int     `json:"attempt"`
	Pod     string  `json:"pod"`
	Events  []Event `json:"events"`
}

// Event is one thing that the agent saw. Seq rises by one from 1 on, so that
// what comes twice or late is known; heartbeats have none.
type Event struct {
	Seq        int               `json:"seq,omitempty"`
	Type       berth.EventType   `json:"type"` // Ready, Initialized, Started, StepStarted, StepFinished, Heartbeat, Completed
	At         time.Time         `json:"at"`
	Message    string            `json:"message,omitempty"`
	Step       int               `json:"step,omitempty"` // from 1 on
	Status     *berth.StepStatus `json:"status,omitempty"`
	Completion *Completion       `json:"completion,omitempty"`
	Usage      *Usage            `json:"usage,omitempty"` // of a heartbeat
}

// Usage is what the agent's container has used since it began, as its cgroup
// tells; nil is what the kernel doesn't tell.
type Usage struct {
	CPUSeconds       *float64 `json:"cpuSeconds,omitempty"`
	ThrottledSeconds *float64 `json:"throttledSeconds,omitempty"` // held back at its CPU limit
	MemoryBytes      *int64   `json:"memoryBytes,omitempty"`      // now: without file cache that isn't in use
	MemoryPeakBytes  *int64   `json:"memoryPeakBytes,omitempty"`  // with file cache
}

// Completion is how the agent's work ended: the end of the attempt.
type Completion struct {
	ExitCode int                `json:"exitCode"`
	EndedAt  time.Time          `json:"endedAt"`
	Result   json.RawMessage    `json:"result,omitempty"` // of a function that succeeded
	Fault    *Fault             `json:"fault,omitempty"`  // why it failed, where the exit code doesn't tell
	Steps    []berth.StepStatus `json:"steps,omitempty"`
	Usage    *Usage             `json:"usage,omitempty"` // all of it

	// Deferred: the program was killed, or the agent was told to end, and why
	// is for the container's own status to say (out of memory, over its time).
	Deferred bool `json:"deferred,omitempty"`
}

// Outcome puts a completion into the domain's terms, with the diagnosis of it.
func (c *Completion) Outcome(d *berth.Diagnosis) *berth.Outcome {
	code := c.ExitCode
	return &berth.Outcome{ExitCode: &code, Diagnosis: d, Result: c.Result, Steps: c.Steps, Usage: c.Usage.total()}
}

// total puts what an agent counted into the domain's terms; nil when it is
// nothing, or can't be.
func (u *Usage) total() *berth.AttemptUsage {
	if u == nil || u.CPUSeconds == nil && u.MemoryPeakBytes == nil || below(u.CPUSeconds) || below(u.MemoryPeakBytes) || below(u.ThrottledSeconds) {
		return nil
	}
	source := berth.UsageFromAgent
	return &berth.AttemptUsage{Usage: berth.Usage{CPUSeconds: u.CPUSeconds, MemoryPeakBytes: u.MemoryPeakBytes, Source: &source}, ThrottledSeconds: u.ThrottledSeconds}
}

// below reports whether a figure is one that there can't be.
func below[T int64 | float64](n *T) bool { return n != nil && *n < 0 }

// Fault is a failure that only the agent could see.
type Fault struct {
	Cause    berth.Cause      `json:"cause"`
	Summary  string           `json:"summary"`
	Evidence []berth.Evidence `json:"evidence,omitempty"`
	Remedy   string           `json:"remedy,omitempty"` // {task} stands for the task's id
}

// envelope is what is left with the container: the completion itself, or where
// it is in the log.
type envelope struct {
	Berth      int         `json:"berth"`
	Completion *Completion `json:"completion,omitempty"`
	InLog      *Block      `json:"inLog,omitempty"`
	ExitCode   int         `json:"exitCode"`
}

// Block describes a completion that is in frames at the end of the log.
type Block struct {
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// maxBlock bounds a completion in a log: whatever runs as the agent's user can
// write one.
const maxBlock = 4 << 20

// ErrNoEnvelope says that a container's message is not an agent's: it was
// killed before it could write one.
var ErrNoEnvelope = errors.New("the agent left no report")

// EncodeMessage writes a completion as a container's message. Where it is
// larger than limit (0: none), the message says where it is, and block is what
// has to go to the end of the log by [Frames].
func EncodeMessage(c *Completion, limit int) (message, block []byte, err error) {
	message, err = json.Marshal(envelope{Berth: Version, Completion: c, ExitCode: c.ExitCode})
	if err != nil || limit == 0 || len(message) <= limit {
		return message, nil, err
	}
	block, err = json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	message, err = json.Marshal(envelope{Berth: Version, InLog: &Block{Size: len(block), SHA256: digest(block)}, ExitCode: c.ExitCode})
	return message, block, err
}

// DecodeMessage reads a container's message: a completion, or the block of the
// log that it is in, by which [ReadBlock] finds it.
func DecodeMessage(message []byte) (*Completion, *Block, error) {
	var e envelope
	if json.Unmarshal(message, &e) != nil || e.Berth < 1 || e.Completion == nil && e.InLog == nil || e.InLog != nil && (e.InLog.Size < 0 || e.InLog.Size > maxBlock) {
		return nil, nil, ErrNoEnvelope
	}
	return e.Completion, e.InLog, nil
}

// maxEvents bounds the events of one report.
const maxEvents = 10_000

// Valid reports whether a report is one that an agent could have sent.
func (r *Report) Valid() bool {
	if r.Task == "" || r.Pod == "" || r.Attempt < 1 || len(r.Events) == 0 || len(r.Events) > maxEvents {
		return false
	}
	for i := range r.Events {
		e := &r.Events[i]
		switch e.Type {
		case berth.EventHeartbeat:
		case berth.EventReady, berth.EventInitialized, berth.EventStarted:
			if e.Seq < 1 {
				return false
			}
		case berth.EventStepStarted, berth.EventStepFinished:
			if e.Seq < 1 || e.Step < 1 || e.Status == nil {
				return false
			}
		case berth.EventCompleted:
			if e.Seq < 1 || e.Completion == nil {
				return false
			}
		default:
			return false
		}
	}
	return true
}
