package berth

import "time"

// Step is one command of a task that has several, run one after the other in
// one container.
type Step struct {
	Name          string        `json:"name"`
	Run           string        `json:"run,omitempty"`     // a script for the image's shell
	Command       []string      `json:"command,omitempty"` // or a whole command
	Env           []EnvVar      `json:"env,omitempty"`
	IgnoreFailure bool          `json:"ignoreFailure,omitempty"` // go on, and succeed, though it fails
	Timeout       time.Duration `json:"timeout,omitempty"`
}

// StepState is where a step stands.
type StepState string

const (
	StepPending   StepState = "pending"
	StepRunning   StepState = "running"
	StepSucceeded StepState = "succeeded"
	StepFailed    StepState = "failed"
	StepSkipped   StepState = "skipped" // an earlier step failed, or the task was cancelled
)

// StepStatus is what became of a step.
type StepStatus struct {
	Name       string     `json:"name"`
	State      StepState  `json:"state"`
	ExitCode   *int       `json:"exitCode"`
	Ignored    bool       `json:"ignored,omitempty"` // it failed, and that was to be ignored
	Reason     string     `json:"reason,omitempty"`  // of a failure that is not an exit code
	StartedAt  *time.Time `json:"startedAt"`
	FinishedAt *time.Time `json:"finishedAt"`
}
