package berth

import "time"

// Observation is what a driver sees of an attempt's pod, in no driver's terms.
type Observation struct {
	TaskID  string
	Attempt int
	Pod     string
	UID     string

	Node      string
	Address   string // IP address of the pod
	Image     string // as the pod asks for it
	ImageID   string
	Pulling   bool      // the node is fetching the image
	Pulled    bool      // the image is on the node
	StartedAt time.Time // main container; zero: has not run
	EndedAt   time.Time // main container
	Outcome   *Outcome  // nil while it has not ended
	Leaving   bool      // the pod is being deleted
	Gone      bool      // the pod doesn't exist any more; without an Outcome nobody saw how it ended

	Diagnosis *Diagnosis // nil while all is well
	Patience  Patience   // for the diagnosis
	Waits     string     // what is being done or waited for before the start, in words; empty: nothing to tell
}

// Observe takes in what a driver saw. Observations may come late, twice and in
// any order: the first terminal outcome stands.
func (l *Life) Observe(o Observation, now time.Time) []Event {
	a := l.ByNumber(o.Attempt)
	if a == nil || a.Pod != o.Pod {
		return nil
	}
	if a.Outcome != nil { // late
		if o.Gone && (a.UID == "" || a.UID == o.UID) {
			a.Removed = true
		}
		if o.Outcome != nil && a.EndSeen.IsZero() {
			a.EndSeen = now.UTC()
			a.Outcome.Network = o.Outcome.Network // an agent tells its end before the proxy's sidecar does
			l.transferred(a)
			return l.disagreement(a, o.Outcome, now)
		}
		return nil
	}
	var events []Event
	if a.UID == "" {
		if o.UID == "" {
			return nil
		}
		events = append(events, l.Seen(o.UID, true, now)...)
	}
	if a.UID != o.UID && !o.Gone {
		// Somebody deleted our pod and made another of the same name.
		o = Observation{TaskID: o.TaskID, Attempt: o.Attempt, Pod: o.Pod, UID: a.UID, Gone: true}
	}
	events = append(events, l.milestones(a, o, now)...)
	switch {
	case o.Outcome != nil:
		a.Removed = o.Gone
		a.EndSeen = now.UTC()
		outcome := *o.Outcome
		a.EndedAt = o.EndedAt.UTC()
		if a.EndedAt.IsZero() {
			a.EndedAt = now.UTC()
		}
		events = append(events, l.end(a, outcome, now)...)
	case o.Gone:
		a.Removed = true
		events = append(events, l.vanish(a, o.Diagnosis, now)...)
	default:
		if a.StartedAt.IsZero() {
			l.waits(o.Waits)
		}
		events = append(events, l.stall(a, o, now)...)
	}
	return events
}

// waits tells what is being done before the start, or waited for.
func (l *Life) waits(what string) {
	if what == "" {
		l.Task.Reason = nil
	} else if l.Task.Reason == nil || *l.Task.Reason != what {
		l.Task.Reason = &what
	}
}

func (l *Life) milestones(a *Attempt, o Observation, now time.Time) []Event {
	var events []Event
	if o.Node != "" && a.Node == "" {
		a.Node = o.Node
		l.Task.Node = &a.Node
		events = append(events, l.event(EventScheduled, now, "on node "+o.Node))
	}
	if o.Address != "" && l.Task.Spec.Cluster != nil { // of others nobody asks
		a.Address = o.Address
	}
	if o.Pulling && !a.Pulling && !a.Pulled {
		a.Pulling = true
		events = append(events, l.event(EventPulling, now, l.Task.Image))
	}
	if o.Pulled && !a.Pulled {
		a.Pulled = true
		events = append(events, l.event(EventPulled, now, l.Task.Image))
	}
	if o.ImageID != "" {
		a.ImageID = o.ImageID
	}
	if !o.StartedAt.IsZero() && a.StartedAt.IsZero() {
		a.StartedAt = o.StartedAt.UTC()
		if a.StartedAt.Before(a.IntendedAt) {
			a.StartedAt = a.IntendedAt // the cluster tells whole seconds
		}
		l.Task.StartedAt = timePtr(a.StartedAt)
		l.Task.State, l.Task.Reason = StateRunning, nil
		events = append(events, l.event(EventStarted, now, "on node "+o.Node))
	}
	return events
}

// vanish: the pod is gone and nobody saw how it ended.
func (l *Life) vanish(a *Attempt, d *Diagnosis, now time.Time) []Event {
	a.EndedAt = now.UTC()
	return l.end(a, Outcome{Unknown: true, Diagnosis: d, Reason: "the pod is gone and its outcome is unknown"}, now)
}

// Lose ends an attempt that nobody can vouch for: its pod may have been
// created, and isn't there.
func (l *Life) Lose(d *Diagnosis, now time.Time) []Event {
	a := l.Open()
	if a == nil {
		return nil
	}
	a.Removed = true
	return l.vanish(a, d, now)
}
