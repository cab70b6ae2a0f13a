package berth

import (
	"fmt"
	"slices"
	"time"
)

// Life is a task with its attempts, and the state machine over them: each
// method takes one thing that happened and returns the events to be stored
// with the changed life. The methods are pure but for the receiver: no clock,
// no I/O. Whoever calls them stores the result before acting upon it, and what
// is to be done follows from the stored state alone (see Next), so a crash at
// any point loses nothing.
type Life struct {
	Task      Task
	Attempts  []Attempt
	NotBefore time.Time // a retry waits until then
	Key       string    // idempotency key of the submission
	Among     []string  // infrastructures that it may move to while it was never tried; none: its place was chosen by a person
	Share     string    // that room is shared between evenly: the owner, or what the infrastructure says
}

// Change is a life to be stored together with the events that led to it.
type Change struct {
	Life   *Life
	Events []Event
	New    bool
}

// NewLife is a task as it is when it is stored first.
func NewLife(id, owner, key string, spec TaskSpec, now time.Time) (*Life, []Event) {
	l := &Life{Key: key, Task: Task{
		ID: id, State: StateQueued, Infrastructure: spec.Infrastructure, Image: spec.Image,
		CreatedAt: now.UTC(), Owner: owner, Spec: spec, Steps: append([]StepStatus{}, pendingSteps(spec.Steps)...),
	}}
	if spec.Name != "" {
		l.Task.Name = &spec.Name
	}
	return l, []Event{l.event(EventQueued, now, "on "+spec.Infrastructure)}
}

// Clone returns a copy that shares nothing that a method changes.
func (l *Life) Clone() *Life {
	c := *l
	c.Attempts = slices.Clone(l.Attempts)
	return &c
}

// Current returns the last attempt, or nil before the first.
func (l *Life) Current() *Attempt {
	if len(l.Attempts) == 0 {
		return nil
	}
	return &l.Attempts[len(l.Attempts)-1]
}

// Open returns the attempt that is not known to have ended, or nil. There is
// at most one.
func (l *Life) Open() *Attempt {
	if a := l.Current(); a != nil && a.Outcome == nil {
		return a
	}
	return nil
}

// ByNumber returns an attempt, or nil.
func (l *Life) ByNumber(number int) *Attempt {
	if number < 1 || number > len(l.Attempts) {
		return nil
	}
	return &l.Attempts[number-1]
}

// Settled reports whether nothing is left to be done: the task has ended, its
// logs are kept and no pod of it is left.
func (l *Life) Settled() bool {
	if !l.Task.State.Terminal() {
		return false
	}
	for i := range l.Attempts {
		if !l.Attempts[i].Removed || l.Attempts[i].Logs == LogsOpen {
			return false
		}
	}
	return true
}

// PodName is the name of an attempt's pod. It is fixed by task and attempt, so
// that creating it twice is creating it once. A further candidate is for when
// somebody else's pod has that name.
func PodName(taskID string, attempt, candidate int) string {
	if candidate == 0 {
		return fmt.Sprintf("berth-%s-%d", taskID, attempt)
	}
	return fmt.Sprintf("berth-%s-%d-%d", taskID, attempt, candidate)
}

// Parked reports whether a task merely waits to be let through: nothing of an
// earlier attempt is left to be done, and no time is waited for.
func (l *Life) Parked() bool {
	if l.Task.State != StateQueued || !l.NotBefore.IsZero() || l.Task.CancelledAt != nil {
		return false
	}
	for i := range l.Attempts {
		if !l.Attempts[i].Removed || l.Attempts[i].Logs == LogsOpen {
			return false
		}
	}
	return true
}

// Admit lets a queued task through: its next attempt is intended from now on.
func (l *Life) Admit(now time.Time) []Event {
	if l.Task.State != StateQueued || l.Task.CancelledAt != nil {
		return nil
	}
	number := len(l.Attempts) + 1
	pod := PodName(l.Task.ID, number, 0)
	l.Attempts = append(l.Attempts, Attempt{Number: number, Pod: pod, IntendedAt: now.UTC(), GraceFrom: now.UTC(), Steps: pendingSteps(l.Task.Spec.Steps)})
	l.Task.Attempt, l.Task.Pod, l.Task.Node = number, &pod, nil
	l.Task.State, l.NotBefore = StateLaunching, time.Time{}
	l.Task.StartedAt, l.Task.ExitCode, l.Task.Reason, l.Task.Usage = nil, nil, nil, Usage{}
	l.Task.Steps = append([]StepStatus{}, pendingSteps(l.Task.Spec.Steps)...)
	events := []Event{l.event(EventAdmitted, now, "as pod "+pod)}
	return append(events, l.clear(now)...)
}

// Rename moves an attempt that has no pod yet to the next name, because the
// one that it had is taken by somebody else's pod.
func (l *Life) Rename(now time.Time) []Event {
	a := l.Open()
	if a == nil || a.UID != "" {
		return nil
	}
	taken := a.Pod
	a.Candidate++
	a.Pod = PodName(l.Task.ID, a.Number, a.Candidate)
	l.Task.Pod = &a.Pod
	return []Event{l.event(EventWarning, now, fmt.Sprintf("a pod named %s that isn't ours exists; the name is now %s", taken, a.Pod))}
}

// Withdraw takes back an attempt whose pod is known not to have been created:
// the task is queued again, and says why.
func (l *Life) Withdraw(d *Diagnosis, notBefore, now time.Time) []Event {
	a := l.Open()
	if a == nil || a.UID != "" {
		return nil
	}
	l.Attempts = l.Attempts[:len(l.Attempts)-1]
	l.Task.State, l.Task.Attempt, l.Task.Pod = StateQueued, len(l.Attempts), nil
	l.NotBefore = notBefore
	if l.Task.CancelledAt != nil {
		return l.finish(StateCancelled, now)
	}
	return l.Diagnose(d, now)
}

// Refuse ends an attempt whose pod the cluster will never accept.
func (l *Life) Refuse(d *Diagnosis, now time.Time) []Event {
	a := l.Open()
	if a == nil || a.UID != "" {
		return nil
	}
	a.Removed, a.Logs = true, LogsComplete
	return l.end(a, Outcome{Diagnosis: d, NeverStarted: true}, now)
}

// Seen records the UID of an attempt's pod at first sight. adopted says that
// it was not our own create that told it.
func (l *Life) Seen(uid string, adopted bool, now time.Time) []Event {
	a := l.Open()
	if a == nil || a.UID != "" {
		return nil
	}
	a.UID = uid
	events := []Event{l.event(EventCreated, now, "pod "+a.Pod)}
	if adopted {
		events = append(events, l.event(EventAdopted, now, "found pod "+a.Pod+" that an earlier process created"))
	}
	// What kept it from being created does so no longer.
	a.StallFrom, a.Patience = time.Time{}, PatienceStart
	return append(events, l.clear(now)...)
}

// Cancel stores the wish to cancel. It wins over a create in flight: the task
// ends as cancelled once no pod of it can run any more.
func (l *Life) Cancel(now time.Time) []Event {
	if l.Task.State.Terminal() || l.Task.CancelledAt != nil {
		return nil
	}
	l.Task.CancelledAt = timePtr(now)
	events := []Event{l.event(EventCancel, now, "")}
	if l.Open() == nil {
		events = append(events, l.finish(StateCancelled, now)...)
	}
	return events
}

// Never ends a cancelled attempt whose pod is known not to exist.
func (l *Life) Never(now time.Time) []Event {
	a := l.Open()
	if a == nil || l.Task.CancelledAt == nil || a.UID != "" {
		return nil
	}
	a.Removed, a.Logs = true, LogsComplete
	return l.end(a, Outcome{NeverStarted: true}, now)
}

// end records an attempt's outcome, once, and decides what becomes of the task.
func (l *Life) end(a *Attempt, o Outcome, now time.Time) []Event {
	if a.StartedAt.IsZero() && !o.Unknown {
		o.NeverStarted = true
	}
	a.Outcome = &o
	if a.EndedAt.IsZero() {
		a.EndedAt = now.UTC()
	}
	if !a.MayHaveRun() && a.Logs == LogsOpen {
		a.Logs = LogsComplete // there can't be any
	}
	l.Task.ExitCode, l.Task.Reason = o.ExitCode, nil
	l.Task.Result, a.Outcome.Result = o.Result, nil // kept once: it may be large
	if len(o.Steps) > 0 {
		a.Steps, a.Outcome.Steps = o.Steps, nil
		l.Task.Steps = a.Steps
	}
	if o.Usage != nil {
		a.Usage, a.Outcome.Usage = o.Usage, nil
		l.Task.Usage = a.Usage.Usage
	}
	l.transferred(a)
	if o.Reason != "" {
		l.Task.Reason = &a.Outcome.Reason
	}
	switch {
	case l.Task.CancelledAt != nil:
		return l.finish(StateCancelled, now)
	case o.Success():
		return l.finish(StateSucceeded, now)
	}
	if delay, again := l.retry(a); again {
		return l.again(a, delay, now)
	}
	l.Task.Diagnosis = o.Diagnosis
	if o.Unknown {
		return l.finish(StateLost, now)
	}
	return l.finish(StateFailed, now)
}

// finish ends the task, once.
func (l *Life) finish(state TaskState, now time.Time) []Event {
	if l.Task.State.Terminal() {
		return nil
	}
	l.Task.State = state
	l.Task.FinishedAt = timePtr(now)
	event := map[TaskState]EventType{StateSucceeded: EventFinished, StateFailed: EventFailed, StateCancelled: EventStopped, StateLost: EventLost}[state]
	message := string(state)
	switch {
	case state == StateSucceeded || state == StateCancelled:
		l.Task.Diagnosis = nil
		if state == StateCancelled {
			l.Task.Diagnosis = &Diagnosis{
				Cause: CauseCancelled, Summary: "The task was cancelled.", Since: *l.Task.CancelledAt,
				Evidence: []Evidence{}, Remedy: Remedy{Text: "submit it again if that was not meant", By: RemedyByUser},
			}
		}
	case l.Task.Diagnosis != nil:
		message = string(l.Task.Diagnosis.Cause) + ": " + l.Task.Diagnosis.Summary
	}
	if l.Task.Reason == nil {
		reason := "Completed"
		if l.Task.Diagnosis != nil {
			reason = string(l.Task.Diagnosis.Cause)
		}
		l.Task.Reason = &reason
	}
	return []Event{l.event(event, now, message)}
}

// Measured records what an attempt that has ended used, by what was measured
// while it ran, or why nothing was. What its agent counted stands.
func (l *Life) Measured(number int, u AttemptUsage) {
	a := l.ByNumber(number)
	if a == nil || a.Outcome == nil || a.Usage != nil {
		return
	}
	a.Usage = &u
	if number == l.Task.Attempt {
		l.Task.Usage = u.Usage
		l.Task.Usage.Network = a.Network
	}
}

// transferred records what an attempt's outcome says of its proxy.
func (l *Life) transferred(a *Attempt) {
	if a.Network == nil && a.Outcome.Network != nil {
		a.Network = a.Outcome.Network
	}
	a.Outcome.Network = nil
	if a.Number == l.Task.Attempt {
		l.Task.Usage.Network = a.Network
	}
}

// LogsKept records that an attempt's log is stored as far as it can be had.
func (l *Life) LogsKept(number int, state LogState) {
	if a := l.ByNumber(number); a != nil && a.Logs == LogsOpen {
		a.Logs = state
	}
}

func (l *Life) event(t EventType, at time.Time, message string) Event {
	attempt := 0
	if a := l.Current(); a != nil {
		attempt = a.Number
	}
	return Event{TaskID: l.Task.ID, Attempt: attempt, Type: t, Message: message, At: at.UTC()}
}
