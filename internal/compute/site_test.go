package compute

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const clusterID = "k01234567890123456789"

// newRecord is a cluster as it is stored when it is made.
func newRecord(groups ...berth.ClusterGroup) berth.ClusterRecord {
	c := berth.Cluster{
		ID: clusterID, Name: "it", Engine: "fake", State: berth.ClusterStarting, Infrastructure: "here", Image: "image", Owner: "ada", CreatedAt: t0,
		Head: berth.ClusterHead{Versions: map[string]string{}}, Groups: []berth.GroupStatus{}, Warnings: []string{},
		Spec: berth.ClusterSpec{Name: "it", Engine: "fake", Image: "image", Workers: groups, DrainTimeout: 10 * time.Minute},
	}
	c.Spec.Head = berth.ClusterGroup{Name: berth.HeadGroup, Count: 1}
	return berth.ClusterRecord{Key: "key", Caller: berth.Caller{Name: "ada", Role: berth.RoleWrite}, Cluster: c}
}

func fixed(n int) berth.ClusterGroup { return berth.ClusterGroup{Name: "workers", Count: n} }

func adaptive(least, most int) berth.ClusterGroup {
	return berth.ClusterGroup{Name: "workers", Min: least, Max: most}
}

// site is what one cluster is decided for: the tasks, the head and the clock are
// as a test has them be.
type site struct {
	view
	log  []string // what was done
	made map[string]bool
}

func newSite(groups ...berth.ClusterGroup) *site {
	return &site{view: view{now: t0, record: newRecord(groups...), workers: map[string]berth.Task{}, fewer: map[string]time.Time{}}, made: map[string]bool{}}
}

// running is a site whose workers are all there and idle.
func running(groups ...berth.ClusterGroup) *site {
	s := newSite(groups...)
	s.pass()
	s.headRuns()
	s.answers()
	s.pass()
	for id := range s.workers {
		s.joins(id)
	}
	s.pass()
	s.log = nil
	return s
}

func (s *site) headRuns() {
	pod := "head-pod"
	s.head.State, s.head.Pod, s.address = berth.StateRunning, &pod, "10.0.0.1"
}

func (s *site) answers() {
	s.state, s.stateAt, s.trouble = &State{Workers: map[string]Worker{}, Clients: 1, Unfinished: 1}, s.now, nil
}

func (s *site) silent(err error) { s.state, s.trouble = nil, err }

func podOf(id string) string { return id + "-pod" }

func (s *site) change(id string, change func(*berth.Task)) {
	task := s.workers[id]
	change(&task)
	s.workers[id] = task
}

func (s *site) starts(id string) {
	pod := podOf(id)
	s.change(id, func(t *berth.Task) { t.State, t.Pod = berth.StateRunning, &pod })
}

func (s *site) joins(id string) {
	s.starts(id)
	s.state.Workers[podOf(id)] = Worker{Running: true}
}

func (s *site) computes(id string, n int) {
	w := s.state.Workers[podOf(id)]
	w.Executing = n
	s.state.Workers[podOf(id)] = w
}

func (s *site) drained(id string) {
	w := s.state.Workers[podOf(id)]
	w.Executing, w.Drained = 0, true
	s.state.Workers[podOf(id)] = w
}

func (s *site) ends(id string, state berth.TaskState, cause berth.Cause) {
	s.change(id, func(t *berth.Task) {
		if t.State = state; cause != "" {
			t.Diagnosis = &berth.Diagnosis{Cause: cause}
		}
	})
	if s.state != nil {
		delete(s.state.Workers, podOf(id))
	}
}

// scaled is what a person does.
func (s *site) scaled(group berth.ClusterGroup) {
	if s.record.Wanted.Sizes == nil {
		s.record.Wanted.Sizes = map[string]berth.GroupSize{}
	}
	s.record.Wanted.Sizes[group.Name] = berth.GroupSize{Count: group.Count, Min: group.Min, Max: group.Max, At: s.now}
	s.record.Wanted.Apply(&s.record.Cluster.Spec)
}

func (s *site) deleted() { at := s.now; s.record.Wanted.DeletedAt = &at }

// later lets time pass; a head that answers goes on doing so.
func (s *site) later(d time.Duration) {
	s.now = s.now.Add(d)
	if s.state != nil {
		s.stateAt = s.now
	}
}

// pass decides once, and does what was decided.
func (s *site) pass() acts {
	next, acts := decide(s.view)
	s.record = next
	if acts.makeHead {
		s.head = &berth.Task{ID: "head", State: berth.StateQueued}
		s.record.Keeping.Head = "head"
		s.log = append(s.log, "make head")
	}
	for _, o := range acts.make {
		id := fmt.Sprintf("%s-%03d", o.group.Name, o.number)
		if s.made[id] {
			panic("made twice: " + id)
		}
		s.made[id] = true
		s.workers[id] = berth.Task{ID: id, State: berth.StateQueued}
		s.record.Keeping.Members[id] = berth.Membership{Group: o.group.Name}
		s.log = append(s.log, "make "+id)
	}
	for _, pod := range acts.drain {
		w := s.state.Workers[pod]
		w.Draining = true
		s.state.Workers[pod] = w
		s.log = append(s.log, "drain "+strings.TrimSuffix(pod, "-pod"))
	}
	for _, id := range acts.cancel {
		at := s.now
		s.change(id, func(t *berth.Task) { t.CancelledAt = &at })
		s.log = append(s.log, "cancel "+id)
	}
	return acts
}

// did tells what was done since it was asked last.
func (s *site) did(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(s.log, want) {
		t.Errorf("it did %q, want %q", s.log, want)
	}
	s.log = nil
}

func (s *site) group() berth.GroupStatus { return s.record.Cluster.Groups[0] }

// stands checks how the workers are counted.
func (s *site) stands(t *testing.T, wanted, ready, waiting, draining int) {
	t.Helper()
	g := s.group()
	if got := [4]int{g.Wanted, g.Ready, g.Waiting, g.Draining}; got != [4]int{wanted, ready, waiting, draining} {
		t.Errorf("wanted, ready, waiting, draining: %v, want %v", got, [4]int{wanted, ready, waiting, draining})
	}
}

// is checks the state of the cluster, and what is said of it.
func (s *site) is(t *testing.T, state berth.ClusterState, reason string) {
	t.Helper()
	said := ""
	if s.record.Cluster.Reason != nil {
		said = *s.record.Cluster.Reason
	}
	if s.record.Cluster.State != state || !strings.Contains(said, reason) || reason == "" && said != "" {
		t.Errorf("it is %s: %q, want %s: %q", s.record.Cluster.State, said, state, reason)
	}
}

func (s *site) ids() []string { return slices.Sorted(maps.Keys(s.record.Keeping.Members)) }

// fakeEngine is an engine whose heads the test is.
type fakeEngine struct{ connect func() Head }

func (fakeEngine) Files() map[string][]byte { return map[string][]byte{"program": []byte("it")} }
func (fakeEngine) Head(_ *berth.Cluster, spec *berth.TaskSpec) {
	spec.Args = []string{"head"}
}

func (fakeEngine) Worker(_ *berth.Cluster, _ *berth.ClusterGroup, head string, spec *berth.TaskSpec) {
	spec.Args = []string{"worker", head}
}
func (fakeEngine) Port(berth.ClusterPort) int { return 1 }
func (e fakeEngine) Connect(*berth.Cluster, func(context.Context) (net.Conn, error)) Head {
	return e.connect()
}
