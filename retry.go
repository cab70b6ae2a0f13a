package berth

import (
	"fmt"
	"time"
)

// InfrastructureRetries is how often attempts that the cluster ended before
// the main container started are tried again, whatever the task says.
const InfrastructureRetries = 3

// retry says whether another attempt is allowed, and after how long. Two
// budgets: the infrastructure's for attempts that the cluster ended before
// they started, the task's own for those that had started.
func (l *Life) retry(a *Attempt) (time.Duration, bool) {
	var byCluster, own int
	for i := range l.Attempts[:len(l.Attempts)-1] {
		if o := l.Attempts[i].Outcome; o.ByCluster || o.Unknown {
			byCluster++
		} else {
			own++
		}
	}
	o := a.Outcome
	switch {
	case l.Task.Orphan: // what was asked for isn't known
		return 0, false
	case o.NeverStarted:
		return backoff(byCluster), o.ByCluster && byCluster < InfrastructureRetries
	case o.Unknown:
		return backoff(byCluster), l.Task.Spec.Idempotent && byCluster < max(InfrastructureRetries, l.Task.Spec.Retries)
	case o.ByCluster && l.Task.Spec.Idempotent && byCluster < InfrastructureRetries:
		return backoff(byCluster), true
	case o.ByCluster:
		return backoff(byCluster), byCluster < l.Task.Spec.Retries
	}
	if o.Diagnosis != nil && o.Diagnosis.Cause == CauseTimedOut && !l.Task.Spec.Idempotent && l.Task.Spec.Retries == 0 {
		return 0, false
	}
	return backoff(own), own < l.Task.Spec.Retries
}

const longestBackoff = 5 * time.Minute

// backoff doubles from a second to five minutes.
func backoff(earlier int) time.Duration {
	return min(time.Second<<min(earlier, 20), longestBackoff)
}

func (l *Life) again(a *Attempt, delay time.Duration, now time.Time) []Event {
	why := "unknown"
	if a.Outcome.Diagnosis != nil {
		why = string(a.Outcome.Diagnosis.Cause)
	}
	l.Task.State = StateQueued
	l.NotBefore = now.UTC().Add(delay)
	events := []Event{l.event(EventRetrying, now, fmt.Sprintf("attempt %d ended: %s; the next begins in %s", a.Number, why, delay))}
	return append(events, l.Diagnose(a.Outcome.Diagnosis, now)...)
}
