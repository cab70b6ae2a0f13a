package berth

import (
	"encoding/json"
	"slices"
	"time"
)

// Cause is the stable code of why something failed or does not start.
type Cause string

const (
	CauseInsufficientCPU              Cause = "InsufficientCPU"
	CauseInsufficientMemory           Cause = "InsufficientMemory"
	CauseInsufficientGPU              Cause = "InsufficientGPU"
	CauseInsufficientEphemeralStorage Cause = "InsufficientEphemeralStorage"
	CauseTooManyPods                  Cause = "TooManyPods"
	CauseNodeSelectorMismatch         Cause = "NodeSelectorMismatch"
	CauseTaintNotTolerated            Cause = "TaintNotTolerated"
	CauseVolumeUnbound                Cause = "VolumeUnbound"
	CauseQuotaExceeded                Cause = "QuotaExceeded"
	CauseLimitRangeViolated           Cause = "LimitRangeViolated"
	CausePodSecurityViolated          Cause = "PodSecurityViolated"
	CauseAdmissionDenied              Cause = "AdmissionDenied"
	CauseForbidden                    Cause = "Forbidden"
	CauseUnauthorized                 Cause = "Unauthorized"
	CauseClusterUnreachable           Cause = "ClusterUnreachable"
	CauseNamespaceNotFound            Cause = "NamespaceNotFound"
	CauseNamespaceTerminating         Cause = "NamespaceTerminating"
	CauseServiceAccountNotFound       Cause = "ServiceAccountNotFound"
	CausePriorityClassNotFound        Cause = "PriorityClassNotFound"
	CauseRuntimeClassNotFound         Cause = "RuntimeClassNotFound"
	CauseInvalidImageName             Cause = "InvalidImageName"
	CauseImageNotFound                Cause = "ImageNotFound"
	CauseImageUnauthorized            Cause = "ImageUnauthorized"
	CauseRegistryUnreachable          Cause = "RegistryUnreachable"
	CauseImageNeverPull               Cause = "ImageNeverPull"
	CauseArchitectureMismatch         Cause = "ArchitectureMismatch"
	CauseCommandNotFound              Cause = "CommandNotFound"
	CauseCommandNotExecutable         Cause = "CommandNotExecutable"
	CauseRunAsNonRootViolated         Cause = "RunAsNonRootViolated"
	CauseConfigNotFound               Cause = "ConfigNotFound"
	CauseMountFailed                  Cause = "MountFailed"
	CauseSandboxFailed                Cause = "SandboxFailed"
	CauseInitFailed                   Cause = "InitFailed"
	CauseOOMKilled                    Cause = "OOMKilled"
	CauseEvicted                      Cause = "Evicted"
	CauseNodeLost                     Cause = "NodeLost"
	CausePreempted                    Cause = "Preempted"
	CauseDeletedExternally            Cause = "DeletedExternally"
	CauseTimedOut                     Cause = "TimedOut"
	CauseStartTimedOut                Cause = "StartTimedOut"
	CauseExitedNonZero                Cause = "ExitedNonZero"
	CauseSignalled                    Cause = "Signalled"
	CauseResultMissing                Cause = "ResultMissing"
	CauseResultMalformed              Cause = "ResultMalformed"
	CauseProxyUnreachable             Cause = "ProxyUnreachable"
	CauseCallbackUnreachable          Cause = "CallbackUnreachable"
	CauseCancelled                    Cause = "Cancelled"
	CauseUnknown                      Cause = "Unknown"
)

// Causes are all causes: the catalogue.
var Causes = []Cause{
	CauseInsufficientCPU, CauseInsufficientMemory, CauseInsufficientGPU, CauseInsufficientEphemeralStorage,
	CauseTooManyPods, CauseNodeSelectorMismatch, CauseTaintNotTolerated, CauseVolumeUnbound, CauseQuotaExceeded,
	CauseLimitRangeViolated, CausePodSecurityViolated, CauseAdmissionDenied, CauseForbidden, CauseUnauthorized,
	CauseClusterUnreachable, CauseNamespaceNotFound, CauseNamespaceTerminating, CauseServiceAccountNotFound,
	CausePriorityClassNotFound, CauseRuntimeClassNotFound, CauseInvalidImageName, CauseImageNotFound,
	CauseImageUnauthorized, CauseRegistryUnreachable, CauseImageNeverPull, CauseArchitectureMismatch,
	CauseCommandNotFound, CauseCommandNotExecutable, CauseRunAsNonRootViolated, CauseConfigNotFound, CauseMountFailed,
	CauseSandboxFailed, CauseInitFailed, CauseOOMKilled, CauseEvicted, CauseNodeLost, CausePreempted,
	CauseDeletedExternally, CauseTimedOut, CauseStartTimedOut, CauseExitedNonZero, CauseSignalled, CauseResultMissing,
	CauseResultMalformed, CauseProxyUnreachable, CauseCallbackUnreachable, CauseCancelled, CauseUnknown,
}

// Evidence is a text taken verbatim from somewhere, for a person to check.
type Evidence struct {
	Source string `json:"source"` // such as "pod condition PodScheduled", "event FailedMount"
	Text   string `json:"text"`
}

// RemedyBy says who can do what a remedy asks for.
type RemedyBy string

const (
	RemedyByUser     RemedyBy = "you"
	RemedyByEngineer RemedyBy = "the cluster's engineer"
)

// Remedy is what to do about a diagnosis, and who can do it.
type Remedy struct {
	Text string
	By   RemedyBy
}

// Diagnosis says why a task failed or does not start. In JSON its fields are
// cause, summary, evidence, remedy (the text), remedyBy and since.
type Diagnosis struct {
	Cause    Cause
	Summary  string // one sentence with the concrete names and numbers
	Evidence []Evidence
	Remedy   Remedy
	Since    time.Time
}

type diagnosisJSON struct {
	Cause    Cause      `json:"cause"`
	Summary  string     `json:"summary"`
	Evidence []Evidence `json:"evidence"`
	Remedy   string     `json:"remedy"`
	RemedyBy RemedyBy   `json:"remedyBy"`
	Since    time.Time  `json:"since"`
}

// MarshalJSON writes the contract of -o json.
func (d Diagnosis) MarshalJSON() ([]byte, error) {
	out := diagnosisJSON{d.Cause, d.Summary, d.Evidence, d.Remedy.Text, d.Remedy.By, d.Since.UTC()}
	if out.Evidence == nil {
		out.Evidence = []Evidence{}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (d *Diagnosis) UnmarshalJSON(data []byte) error {
	var in diagnosisJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*d = Diagnosis{in.Cause, in.Summary, in.Evidence, Remedy{in.Remedy, in.RemedyBy}, in.Since}
	return nil
}

// Same reports whether two diagnoses tell a person the same thing, so that an
// unchanged one is neither stored nor shown again.
func (d *Diagnosis) Same(other *Diagnosis) bool {
	if d == nil || other == nil {
		return d == other
	}
	return d.Cause == other.Cause && d.Summary == other.Summary && d.Remedy == other.Remedy
}

// lacksSourceOf reports whether another diagnosis has evidence from where this
// one has none. That a text of the same source changed, as a count does, is no news.
func (d *Diagnosis) lacksSourceOf(other *Diagnosis) bool {
	return slices.ContainsFunc(other.Evidence, func(e Evidence) bool {
		return !slices.ContainsFunc(d.Evidence, func(own Evidence) bool { return own.Source == e.Source })
	})
}

// Patience is how long a stalled attempt may stay as it is before it fails.
// The durations are an infrastructure's [Grace].
type Patience int

const (
	PatienceStart   Patience = iota // until start_timeout
	PatienceNone                    // hopeless: fail at once
	PatiencePull                    // until pull_grace
	PatienceConfig                  // until config_grace
	PatienceForever                 // not the task's failure: wait
	PatienceLaunch                  // until start_timeout, though nothing could be created yet
)
