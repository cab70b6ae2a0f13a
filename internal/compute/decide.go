package compute

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/berth-run/berth"
)

const (
	// slowHead is how long a head may take to answer before that is worth a word:
	// its program is loaded meanwhile.
	slowHead = 10 * time.Second
	// headLimit is how long the program of a head may run without ever having
	// answered.
	headLimit = 2 * time.Minute
	// freshFor is how old what the engine told may be for something to be ended
	// because of it.
	freshFor = 10 * time.Second
	// fewerAfter is for how long in a row the engine has to want fewer workers
	// before some end: what it wants goes up and down with each batch of work.
	fewerAfter = 5 * time.Second
	// makeAtOnce is how many members are made in one go.
	makeAtOnce = 64
	// failingLimit is how many workers of a group may end in a row before any was
	// ready; then none is made any more until somebody scales.
	failingLimit = 5
)

// view is all that a decision is made from.
type view struct {
	now     time.Time
	engine  Engine
	record  berth.ClusterRecord
	head    *berth.Task // nil: there is none yet
	address string      // of the head's pod
	workers map[string]berth.Task
	left    int // tasks of which something may be left; told when it is stopping
	state   *State
	stateAt time.Time // when that was so
	trouble error     // why there is no state
	fewer   map[string]time.Time
}

// order is a worker that is to be made.
type order struct {
	group  berth.ClusterGroup
	number int
}

// acts is what is to be done once the decision is stored.
type acts struct {
	makeHead bool     // the head is to be made
	make     []order  // workers
	drain    []string // pods
	cancel   []string // tasks
	finish   bool     // nothing is left but the keys
	again    time.Duration
}

// decision is a decision under way.
type decision struct {
	view
	acts
	c *berth.Cluster
	k *berth.ClusterKeeping
}

// decide returns how a cluster stands from now on, and what is to be done.
func decide(v view) (berth.ClusterRecord, acts) {
	d := &decision{view: v}
	d.record.Keeping = copied(v.record.Keeping)
	d.c, d.k = &d.record.Cluster, &d.record.Keeping
	d.again = 10 * time.Second
	d.groups()
	if d.c.State != berth.ClusterStopping {
		d.goOn()
	}
	if d.c.State == berth.ClusterStopping {
		d.stopping()
	}
	return d.record, d.acts
}

func copied(k berth.ClusterKeeping) berth.ClusterKeeping {
	k.Next, k.Members, k.Targets, k.Failing = maps.Clone(k.Next), maps.Clone(k.Members), maps.Clone(k.Targets), maps.Clone(k.Failing)
	if k.Next == nil {
		k.Next = map[string]int{}
	}
	if k.Members == nil {
		k.Members = map[string]berth.Membership{}
	}
	if k.Targets == nil {
		k.Targets = map[string]int{}
	}
	if k.Failing == nil {
		k.Failing = map[string]berth.Failing{}
	}
	return k
}

// groups begins the account of the groups, with what was lost so far.
func (d *decision) groups() {
	before := map[string]berth.GroupStatus{}
	for _, g := range d.c.Groups {
		before[g.Name] = g
	}
	d.c.Groups = nil
	for i := range d.c.Spec.Workers {
		g := &d.c.Spec.Workers[i]
		status := berth.GroupStatus{Name: g.Name, Lost: map[string]int{}, Versions: before[g.Name].Versions}
		maps.Copy(status.Lost, before[g.Name].Lost)
		if status.Versions == nil {
			status.Versions = map[string]string{}
		}
		d.c.Groups = append(d.c.Groups, status)
	}
}

func (d *decision) status(group string) *berth.GroupStatus {
	for i := range d.c.Groups {
		if d.c.Groups[i].Name == group {
			return &d.c.Groups[i]
		}
	}
	return &berth.GroupStatus{Lost: map[string]int{}} // nobody sees it: groups stay
}

// end has the cluster stop.
func (d *decision) end(failed bool, diagnosis *berth.Diagnosis, format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	d.c.State, d.c.Reason, d.c.Diagnosis, d.k.Failed = berth.ClusterStopping, &reason, diagnosis, failed
}

func (d *decision) goOn() {
	if at := d.record.Wanted.DeletedAt; at != nil {
		d.end(false, nil, "it was deleted")
		return
	}
	if life := d.c.Spec.MaxLifetime; life > 0 && d.now.Sub(d.c.CreatedAt) >= life {
		d.end(false, nil, "its maximal lifetime of %s is over", life)
		return
	}
	if d.head == nil {
		d.makeHead = true
		d.sizes()
		return
	}
	d.c.Head.Task, d.c.Head.State = &d.head.ID, &d.head.State
	if d.head.State.Terminal() {
		d.headEnded()
		return
	}
	d.headStands()
	d.limits()
	if d.c.State == berth.ClusterStopping {
		return
	}
	d.members()
	d.sizes()
	d.scale()
	d.draining()
	d.warn()
}

// headEnded ends the cluster: nothing can be computed without its head.
func (d *decision) headEnded() {
	own := d.c.Spec.IdleTimeout > 0 || d.c.Spec.NoClientTimeout > 0
	switch {
	case d.head.State == berth.StateSucceeded && own:
		d.end(false, nil, "its head ended by itself, as it had been idle or without a client for as long as it may be")
	case d.head.Diagnosis != nil && d.head.Diagnosis.Cause == berth.CauseTimedOut && d.c.Spec.MaxLifetime > 0:
		d.end(false, nil, "its maximal lifetime of %s is over", d.c.Spec.MaxLifetime)
	case d.head.State == berth.StateSucceeded:
		d.end(true, &berth.Diagnosis{
			Cause: berth.CauseUnknown, Summary: "The program of the cluster's head ended by itself, with exit code 0.", Since: d.now, Evidence: []berth.Evidence{},
			Remedy: berth.Remedy{By: berth.RemedyByUser, Text: "see what it wrote: berth cluster logs " + d.c.Name},
		}, "its head ended")
	case d.head.Diagnosis == nil && d.head.State == berth.StateLost:
		pod := "that ran it"
		if d.head.Pod != nil {
			pod = *d.head.Pod
		}
		d.end(true, &berth.Diagnosis{
			Cause: berth.CauseDeletedExternally, Summary: "The pod " + pod + " of the cluster's head is gone, and nobody saw how it ended: it was deleted, or its node was.", Since: d.now, Evidence: []berth.Evidence{},
			Remedy: berth.Remedy{By: berth.RemedyByUser, Text: "make the cluster again; if it happens again, ask the cluster's engineer what deletes pods in the namespace"},
		}, "its head is lost")
	default:
		d.end(true, d.head.Diagnosis, "its head %s", ended(d.head))
	}
}

// ended says how a task ended.
func ended(task *berth.Task) string {
	if task.State == berth.StateFailed && task.Diagnosis != nil {
		return fmt.Sprintf("failed: %s", task.Diagnosis.Cause)
	}
	return "was " + string(task.State)
}

// headStands tells how the head stands.
func (d *decision) headStands() {
	d.c.Diagnosis, d.c.Reason = d.head.Diagnosis, nil
	say := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		d.c.Reason = &text
	}
	switch {
	case d.head.Stale != nil:
		say("its infrastructure can't be reached: %s", *d.head.Stale)
	case d.head.State != berth.StateRunning && d.head.Reason != nil:
		say("its head is %s: it %s", d.head.State, *d.head.Reason)
	case d.head.State != berth.StateRunning:
		say("its head is %s", d.head.State)
	case d.state == nil && d.c.State == berth.ClusterStarting && d.trouble != nil && d.k.HeadSeen != nil && d.now.Sub(*d.k.HeadSeen) > slowHead:
		say("its head runs, and does not answer yet: %s", d.trouble)
	case d.state == nil && d.c.State == berth.ClusterStarting:
		say("its head runs, and does not answer yet")
	case d.state == nil && d.trouble != nil:
		say("its head does not answer: %s", d.trouble)
	}
	if d.head.State != berth.StateRunning {
		return
	}
	d.again = time.Second
	if d.k.HeadSeen == nil {
		d.k.HeadSeen = &d.now
	}
	if d.state == nil {
		d.c.Clients = nil
		if d.c.StartedAt != nil || d.head.Stale != nil {
			return
		}
		var told *berth.Error
		switch {
		case errors.As(d.trouble, &told) && told.Code == berth.CodeForbidden:
			d.end(true, told.Diagnosis, "its head can't be reached: %s", told.Message) // and never will be
		case d.trouble != nil && d.now.Sub(*d.k.HeadSeen) >= headLimit: // it was asked
			d.neverReady()
		}
		return
	}
	if d.c.StartedAt == nil {
		d.c.StartedAt, d.c.State = &d.now, berth.ClusterRunning
	}
	d.c.State = berth.ClusterRunning
	d.c.Head.Versions, d.c.Clients = d.state.Versions, &d.state.Clients
}

// neverReady ends a cluster whose head runs and never answered.
func (d *decision) neverReady() {
	evidence := []berth.Evidence{{Source: "asking the head for its state", Text: d.trouble.Error()}}
	d.end(true, &berth.Diagnosis{
		Cause: berth.CauseStartTimedOut, Summary: fmt.Sprintf("The program of the cluster's head ran for %s and never answered on its own port.", headLimit), Since: d.now, Evidence: evidence,
		Remedy: berth.Remedy{By: berth.RemedyByUser, Text: "see what it wrote (berth cluster logs " + d.c.Name + "), and whether the image starts what it is told to: its ENTRYPOINT has to run the command that it is given"},
	}, "its head never answered")
}

// limits ends what nobody uses.
func (d *decision) limits() {
	d.c.EndsAt = nil
	ends := func(at time.Time) {
		if d.c.EndsAt == nil || at.Before(*d.c.EndsAt) {
			d.c.EndsAt = &at
		}
	}
	if life := d.c.Spec.MaxLifetime; life > 0 {
		ends(d.c.CreatedAt.Add(life))
	}
	fresh := d.state != nil && d.now.Sub(d.stateAt) < freshFor
	if fresh {
		switch {
		case d.state.Unfinished > 0:
			d.c.IdleSince, d.k.Mark = nil, ""
		case d.c.IdleSince == nil || d.k.Mark != d.state.Mark:
			d.c.IdleSince, d.k.Mark = &d.now, d.state.Mark
		}
		switch {
		case d.state.Clients > 0:
			d.k.NoClient = nil
		case d.k.NoClient == nil:
			d.k.NoClient = &d.now
		case d.state.Alone != nil:
			// One may have come and gone while nobody looked. What is a little later
			// is how long the question took.
			if since := d.stateAt.Add(-*d.state.Alone); since.Sub(*d.k.NoClient) > 2*askEvery {
				d.k.NoClient = &since
			}
		}
	}
	for _, l := range []struct {
		limit time.Duration
		since *time.Time
		why   string
	}{
		{d.c.Spec.IdleTimeout, d.c.IdleSince, "it was idle for %s"},
		{d.c.Spec.NoClientTimeout, d.k.NoClient, "no client was connected for %s"},
	} {
		if l.limit == 0 || l.since == nil {
			continue
		}
		ends(l.since.Add(l.limit))
		if fresh && d.now.Sub(*l.since) >= l.limit {
			d.end(false, nil, l.why, l.limit)
			return
		}
	}
}

// members takes in how the workers stand.
func (d *decision) members() {
	for _, id := range slices.Sorted(maps.Keys(d.k.Members)) {
		m, task := d.k.Members[id], d.workers[id]
		status := d.status(m.Group)
		if task.ID == "" { // it can't be read at the moment
			status.Waiting++
			continue
		}
		if task.State.Terminal() {
			delete(d.k.Members, id)
			d.ended(&m, &task)
			continue
		}
		known, is := d.known(&task)
		if is && known.Running && !m.Ready {
			m.Ready = true
			d.k.Members[id] = m
			delete(d.k.Failing, m.Group)
		}
		switch {
		case m.Draining != nil || m.Dropped:
			status.Draining++
		case task.State == berth.StateRunning && m.Ready && (d.state == nil || is):
			status.Ready++
			if is && len(known.Versions) > 0 {
				status.Versions = known.Versions
			}
		default:
			status.Waiting++
			if task.Diagnosis != nil && status.Diagnosis == nil {
				status.Diagnosis = task.Diagnosis
			}
		}
	}
}

// known is a worker as the head knows it.
func (d *decision) known(task *berth.Task) (Worker, bool) {
	if d.state == nil || task.Pod == nil {
		return Worker{}, false
	}
	w, ok := d.state.Workers[*task.Pod]
	return w, ok
}

// ended takes in the end of a worker: one that was lost is counted by its cause.
func (d *decision) ended(m *berth.Membership, task *berth.Task) {
	if m.Dropped || m.Draining != nil && task.State == berth.StateSucceeded {
		return
	}
	cause := berth.CauseUnknown
	switch {
	case task.Diagnosis == nil && task.State == berth.StateLost:
		cause = berth.CauseDeletedExternally // or its node was
	case task.Diagnosis != nil:
		cause = task.Diagnosis.Cause
	case task.State == berth.StateCancelled:
		cause = berth.CauseCancelled
	}
	d.status(m.Group).Lost[string(cause)]++
	if m.Ready || m.Draining != nil {
		return
	}
	f := d.k.Failing[m.Group]
	f.Count++
	f.At, f.Diagnosis = d.now, task.Diagnosis
	f.Until = d.now.Add(min(time.Second<<min(f.Count-1, 6), time.Minute))
	d.k.Failing[m.Group] = f
}

// sizes says how many workers each group is to have.
func (d *decision) sizes() {
	fixed := 0
	for i := range d.c.Spec.Workers {
		if g := &d.c.Spec.Workers[i]; !g.Adaptive() {
			fixed += g.Count
			d.status(g.Name).Wanted = g.Count
			delete(d.k.Targets, g.Name)
			delete(d.fewer, g.Name)
		}
	}
	wanted := -1
	if d.state != nil {
		wanted = max(0, d.state.Target-fixed)
	}
	for i := range d.c.Spec.Workers {
		g := &d.c.Spec.Workers[i]
		if !g.Adaptive() {
			continue
		}
		now, has := d.k.Targets[g.Name]
		now = min(max(now, g.Min), g.Max)
		if wanted >= 0 {
			to := min(max(wanted, g.Min), g.Max)
			wanted = max(0, wanted-to)
			now = d.damped(g.Name, now, to, has)
		}
		d.k.Targets[g.Name] = now
		d.status(g.Name).Wanted = now
	}
}

// damped is how many workers a group has from now on that the engine wants
// another number of: more at once, fewer when it has wanted fewer for a while.
func (d *decision) damped(group string, now, to int, has bool) int {
	if to >= now || !has {
		delete(d.fewer, group)
		return to
	}
	since, ok := d.fewer[group]
	if !ok {
		d.fewer[group] = d.now
		return now
	}
	if d.now.Sub(since) < fewerAfter {
		return now
	}
	return to
}

// scale makes workers that are wanted, and drains those that are too many.
func (d *decision) scale() {
	if d.head.State != berth.StateRunning || d.address == "" {
		return
	}
	for i := range d.c.Spec.Workers {
		g := &d.c.Spec.Workers[i]
		status := d.status(g.Name)
		lacking := status.Wanted - d.active(g.Name)
		if lacking <= 0 {
			d.tooMany(g, -lacking)
			continue
		}
		if !d.mayMake(g, status) {
			continue
		}
		if d.k.Failing[g.Name].Count > 0 {
			lacking = 1 // one tries
		}
		for range min(lacking, makeAtOnce-len(d.make)) {
			d.k.Next[g.Name]++
			d.make = append(d.make, order{*g, d.k.Next[g.Name]})
			status.Waiting++
		}
	}
	if len(d.make) == makeAtOnce {
		d.again = 0
	}
}

// active is how many workers of a group are to stay.
func (d *decision) active(group string) int {
	n := 0
	for _, m := range d.k.Members {
		if m.Group == group && m.Draining == nil && !m.Dropped {
			n++
		}
	}
	return n
}

// mayMake reports whether a worker of a group may be made now: after some that
// ended before they were ready it is waited, and given up in the end.
func (d *decision) mayMake(g *berth.ClusterGroup, status *berth.GroupStatus) bool {
	f, failing := d.k.Failing[g.Name]
	if !failing {
		return true
	}
	if size, ok := d.record.Wanted.Sizes[g.Name]; ok && size.At.After(f.At) {
		delete(d.k.Failing, g.Name)
		return true
	}
	if status.Diagnosis == nil {
		status.Diagnosis = f.Diagnosis
	}
	if f.Count >= failingLimit || f.Count > 0 && d.active(g.Name) > 0 && status.Ready == 0 {
		return false
	}
	if wait := f.Until.Sub(d.now); wait > 0 {
		d.again = min(d.again, wait)
		return false
	}
	return true
}

// tooMany has workers of a group end: first those that have not started, then
// those that compute least.
func (d *decision) tooMany(g *berth.ClusterGroup, n int) {
	if n == 0 {
		return
	}
	type candidate struct {
		id             string
		started, known bool
		worker         Worker
	}
	var candidates []candidate
	for id, m := range d.k.Members {
		task, ok := d.workers[id]
		if m.Group != g.Name || m.Draining != nil || m.Dropped || !ok || task.State.Terminal() {
			continue
		}
		worker, known := d.known(&task)
		started := task.State == berth.StateRunning
		if started && (d.state == nil || g.Adaptive() && known && !worker.Idle()) {
			continue // nobody knows what it computes, or it is busy
		}
		candidates = append(candidates, candidate{id, started, known, worker})
	}
	rank := func(c candidate) int {
		switch {
		case !c.started:
			return 0
		case !c.known:
			return 1
		}
		return 2 + c.worker.Executing + c.worker.Pending
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.id, a.id)) // newest first: ids grow
	})
	status := d.status(g.Name)
	for _, c := range candidates[:min(n, len(candidates))] {
		m := d.k.Members[c.id]
		if c.known {
			m.Draining = &d.now
		} else {
			m.Dropped = true
		}
		if c.started && c.known && m.Ready {
			status.Ready--
		} else {
			status.Waiting--
		}
		status.Draining++
		d.k.Members[c.id] = m
	}
}

// draining goes on with those that are too many.
func (d *decision) draining() {
	for _, id := range slices.Sorted(maps.Keys(d.k.Members)) {
		m := d.k.Members[id]
		task := d.workers[id]
		if task.ID == "" || m.Draining == nil && !m.Dropped {
			continue
		}
		if !m.Dropped {
			worker, known := d.known(&task)
			switch {
			case d.state != nil && d.stateAt.After(*m.Draining) && (!known || worker.Drained), d.now.Sub(*m.Draining) >= d.c.Spec.DrainTimeout:
				m.Dropped = true
				d.k.Members[id] = m
			case known && !worker.Draining:
				d.drain = append(d.drain, *task.Pod)
			case known && worker.Trouble != "" && d.c.Reason == nil:
				text := "a worker that is too many can't end yet: " + worker.Trouble
				d.c.Reason = &text
			}
		}
		if m.Dropped && task.CancelledAt == nil {
			d.cancel = append(d.cancel, id)
		}
	}
}

// warn tells of what does not stop the cluster and may break what is computed.
func (d *decision) warn() {
	d.c.Warnings = []string{}
	for i := range d.c.Groups {
		g := &d.c.Groups[i]
		if len(g.Versions) == 0 || len(d.c.Head.Versions) == 0 {
			continue
		}
		if text := berth.VersionsDiffer("the workers of group "+g.Name, g.Versions, "the head", d.c.Head.Versions); text != "" {
			d.c.Warnings = append(d.c.Warnings, text)
		}
	}
	for i := range d.c.Spec.Workers {
		g := &d.c.Spec.Workers[i]
		if f := d.k.Failing[g.Name]; f.Count >= failingLimit {
			d.c.Warnings = append(d.c.Warnings, fmt.Sprintf("%d workers of group %s in a row ended before they were ready: no more are made until it is scaled (berth cluster scale %s %d)", f.Count, g.Name, d.c.Name, d.status(g.Name).Wanted))
		}
	}
}

// stopping ends everything that the cluster has.
func (d *decision) stopping() {
	d.c.IdleSince, d.c.EndsAt, d.c.Clients, d.makeHead, d.make, d.drain = nil, nil, nil, false, nil, nil
	for i := range d.c.Groups {
		g := &d.c.Groups[i]
		g.Wanted, g.Ready, g.Waiting, g.Draining, g.Diagnosis = 0, 0, 0, 0, nil
	}
	for _, m := range d.k.Members {
		d.status(m.Group).Draining++
	}
	d.again = time.Second
	d.finish = d.left == 0
}
