package berth

import (
	"fmt"
	"slices"
	"time"
)

// AgentEvent is something that the agent in an attempt's container told.
type AgentEvent struct {
	Seq     int       // rising from 1 on within an attempt
	Type    EventType // Ready, Initialized, Started, StepStarted, StepFinished or Completed
	At      time.Time
	Message string
	Step    int         // from 1 on
	Status  *StepStatus // of the step
	Outcome *Outcome    // of Completed
}

// Told takes in what an attempt's agent told. It may come late, twice or after
// the container's own status: the first terminal outcome stands. The pod has to
// have been seen before (see Attempt.UID).
func (l *Life) Told(number int, pod string, e AgentEvent, now time.Time) []Event {
	a := l.ByNumber(number)
	if a == nil || a.Pod != pod || a.UID == "" || a.Outcome != nil || e.Seq <= a.AgentSeq {
		return nil
	}
	a.AgentSeq = e.Seq
	var events []Event
	if a.StartedAt.IsZero() {
		// It runs, so the container does, though the cluster has not said so yet.
		events = l.milestones(a, Observation{StartedAt: e.At, Node: a.Node}, now)
	}
	switch e.Type {
	case EventReady, EventInitialized:
		events = append(events, l.event(e.Type, now, e.Message))
	case EventStepStarted, EventStepFinished:
		if e.Status != nil && e.Step >= 1 && e.Step <= len(a.Steps) {
			a.Steps = slices.Clone(a.Steps)
			a.Steps[e.Step-1] = *e.Status
			l.Task.Steps = a.Steps
		}
		events = append(events, l.event(e.Type, now, e.Message))
	case EventCompleted:
		if e.Outcome == nil {
			break
		}
		if a.EndedAt = e.At.UTC(); a.EndedAt.Before(a.StartedAt) {
			a.EndedAt = now.UTC() // the node's clock is behind
		}
		events = append(events, l.event(EventCompleted, now, e.Message))
		events = append(events, l.end(a, *e.Outcome, now)...)
	}
	return events
}

// disagreement tells that the container's own status, which came after the
// outcome, says something else.
func (l *Life) disagreement(a *Attempt, o *Outcome, now time.Time) []Event {
	if a.AgentSeq == 0 || o == nil || o.ExitCode == nil || a.Outcome.ExitCode == nil || *o.ExitCode == *a.Outcome.ExitCode {
		return nil
	}
	warning := l.event(EventWarning, now, fmt.Sprintf("the agent reported exit code %d, and the container's status says %d; the first stands", *a.Outcome.ExitCode, *o.ExitCode))
	warning.Attempt = a.Number // the next may have begun meanwhile
	return []Event{warning}
}

// pendingSteps are the steps of a task before its attempt runs them.
func pendingSteps(steps []Step) []StepStatus {
	var out []StepStatus
	for i := range steps {
		out = append(out, StepStatus{Name: steps[i].Name, State: StepPending})
	}
	return out
}
