package berth

import (
	"fmt"
	"time"
)

// stall takes in why an attempt does not progress, or that it does again.
func (l *Life) stall(a *Attempt, o Observation, now time.Time) []Event {
	if !a.StartedAt.IsZero() && o.StartedAt.IsZero() {
		return nil // seen before it started, told after
	}
	if l.Task.CancelledAt != nil && o.Diagnosis != nil && o.Diagnosis.Cause == CauseDeletedExternally {
		return nil // it was us
	}
	if o.Diagnosis == nil {
		a.StallFrom, a.Patience = time.Time{}, PatienceStart
		return l.clear(now)
	}
	if l.Task.Diagnosis == nil || l.Task.Diagnosis.Cause != o.Diagnosis.Cause || a.StallFrom.IsZero() {
		a.StallFrom = now.UTC()
	}
	a.Patience = o.Patience
	events := l.Diagnose(o.Diagnosis, now)
	if o.Patience == PatienceNone && a.StartedAt.IsZero() {
		events = append(events, l.end(a, Outcome{Diagnosis: o.Diagnosis, NeverStarted: true}, now)...)
	}
	return events
}

// Stall shows why an attempt's pod is not created yet, though it will be tried
// again, and for how long that may go on.
func (l *Life) Stall(d *Diagnosis, patience Patience, now time.Time) []Event {
	a := l.Open()
	if a == nil || a.UID != "" {
		return nil
	}
	if a.StallFrom.IsZero() {
		a.StallFrom = now.UTC()
	}
	a.Patience = patience
	return l.Diagnose(d, now)
}

// Diagnose shows why the task waits; an unchanged diagnosis changes nothing.
func (l *Life) Diagnose(d *Diagnosis, now time.Time) []Event {
	if d == nil {
		return l.clear(now)
	}
	if old := l.Task.Diagnosis; old.Same(d) {
		if old.lacksSourceOf(d) {
			more := *old
			more.Evidence = d.Evidence
			l.Task.Diagnosis = &more // what is told stays the same, and more is known of it
		}
		return nil
	}
	shown := *d
	shown.Since = now.UTC()
	if old := l.Task.Diagnosis; old != nil && old.Cause == d.Cause {
		shown.Since = old.Since
	}
	l.Task.Diagnosis = &shown
	return []Event{l.event(EventDiagnosed, now, string(shown.Cause)+": "+shown.Summary)}
}

func (l *Life) clear(now time.Time) []Event {
	if l.Task.Diagnosis == nil {
		return nil
	}
	cause := l.Task.Diagnosis.Cause
	l.Task.Diagnosis = nil
	return []Event{l.event(EventCleared, now, string(cause))}
}

// Expire fails an attempt whose grace has passed. Deadline tells when to call it.
func (l *Life) Expire(grace Grace, startTimedOut func(limit time.Duration) *Diagnosis, now time.Time) []Event {
	deadline, limit := l.Deadline(grace)
	if deadline.IsZero() || now.Before(deadline) {
		return nil
	}
	a := l.Open()
	d := l.Task.Diagnosis
	if d == nil {
		d = startTimedOut(limit)
	}
	a.Removed = a.UID == "" // a late create's pod is deleted when it shows up
	return l.end(a, Outcome{Diagnosis: d, NeverStarted: true, Reason: fmt.Sprintf("gave up after %s", limit)}, now)
}

// Deadline returns when the open attempt's patience ends, and the limit that
// it is by; the zero time while nothing runs out.
func (l *Life) Deadline(grace Grace) (time.Time, time.Duration) {
	a := l.Open()
	if a == nil || !a.StartedAt.IsZero() || l.Task.CancelledAt != nil || a.UID == "" && a.StallFrom.IsZero() {
		return time.Time{}, 0
	}
	if !a.StallFrom.IsZero() {
		switch a.Patience {
		case PatiencePull:
			return a.StallFrom.Add(grace.Pull), grace.Pull
		case PatienceConfig:
			return a.StallFrom.Add(grace.Config), grace.Config
		case PatienceForever:
			return time.Time{}, 0
		}
	}
	if a.UID == "" && a.Patience != PatienceLaunch {
		return time.Time{}, 0 // what passes by itself is waited for
	}
	return a.GraceFrom.Add(grace.Start), grace.Start
}

// NotAhead moves times that lie in the future back to where they can be at
// most: the clock was set back since they were stored, and nothing is to wait
// for that long.
func (l *Life) NotAhead(now time.Time) {
	if latest := now.Add(longestBackoff); l.NotBefore.After(latest) {
		l.NotBefore = latest.UTC()
	}
	a := l.Open()
	if a == nil {
		return
	}
	for _, from := range []*time.Time{&a.GraceFrom, &a.StallFrom} {
		if from.After(now) {
			*from = now.UTC()
		}
	}
}

// Pause moves grace periods by the time that the cluster was out of reach, or
// that the clock was set by.
func (l *Life) Pause(outage time.Duration) {
	a := l.Open()
	if a == nil {
		return
	}
	a.GraceFrom = a.GraceFrom.Add(outage)
	if !a.StallFrom.IsZero() {
		a.StallFrom = a.StallFrom.Add(outage)
	}
}
