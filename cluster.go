package berth

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// EngineDask is the engine of Dask clusters.
const EngineDask = "dask"

// Engines are those that there are.
var Engines = []string{EngineDask}

// ClusterState is where a compute cluster stands: starting → running → stopping
// → stopped or failed.
type ClusterState string

const (
	ClusterStarting ClusterState = "starting" // its head does not answer yet
	ClusterRunning  ClusterState = "running"  // its head answers
	ClusterStopping ClusterState = "stopping" // it was deleted, or reached a limit, or failed: its pods are ended
	ClusterStopped  ClusterState = "stopped"  // ended as somebody wanted, and nothing of it is left
	ClusterFailed   ClusterState = "failed"   // ended as nobody wanted, and nothing of it is left
)

// ClusterStates are all states, in the order of a cluster's life.
var ClusterStates = []ClusterState{ClusterStarting, ClusterRunning, ClusterStopping, ClusterStopped, ClusterFailed}

// Terminal reports whether a cluster in this state has ended, with all that it had.
func (s ClusterState) Terminal() bool { return s == ClusterStopped || s == ClusterFailed }

const (
	// HeadGroup is the name of the group that the head is.
	HeadGroup = "head"
	// WorkerGroup is the name of a group of workers that was given none.
	WorkerGroup = "workers"
	// MaxWorkers is how many workers a cluster has at most: Kubernetes is made
	// for 3,000 pods in a namespace.
	MaxWorkers = 2500
	// DefaultIdleTimeout is after how long a cluster ends that does nothing.
	DefaultIdleTimeout = 20 * time.Minute
	// DefaultDrainTimeout is how long a worker that is too many may finish what it
	// computes.
	DefaultDrainTimeout = 10 * time.Minute
	// MinClusterLimit is the shortest limit of time: how a cluster stands is
	// looked at every second.
	MinClusterLimit = 5 * time.Second
)

// ClusterGroup is what is asked of the head, or of workers that are alike.
type ClusterGroup struct {
	Name             string            `json:"name"`
	Count            int               `json:"count"`         // of workers, where Min and Max are both 0
	Min              int               `json:"min,omitempty"` // of workers, where the engine says how many it wants
	Max              int               `json:"max,omitempty"`
	Image            string            `json:"image,omitempty"` // empty: that of the cluster
	CPU              Quantity          `json:"cpu,omitempty"`
	Memory           Quantity          `json:"memory,omitempty"`
	GPU              int               `json:"gpu,omitempty"`
	EphemeralStorage Quantity          `json:"ephemeralStorage,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Env              []EnvVar          `json:"env,omitempty"`
}

// Adaptive reports whether the engine says how many workers the group has.
func (g *ClusterGroup) Adaptive() bool { return g.Max > 0 }

// Least and Most are the bounds of how many workers the group has.
func (g *ClusterGroup) Least() int {
	if g.Adaptive() {
		return g.Min
	}
	return g.Count
}

func (g *ClusterGroup) Most() int {
	if g.Adaptive() {
		return g.Max
	}
	return g.Count
}

// ClusterSpec is what a person asks for: a head and groups of workers.
type ClusterSpec struct {
	Name            string            `json:"name,omitempty"` // unique among the clusters of its owner that have not ended
	Engine          string            `json:"engine"`
	Infrastructure  string            `json:"infrastructure,omitempty"`
	Image           string            `json:"image"` // that has the engine
	User            string            `json:"user,omitempty"`
	Pull            PullPolicy        `json:"pull,omitempty"`
	Env             []EnvVar          `json:"env,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Head            ClusterGroup      `json:"head"`
	Workers         []ClusterGroup    `json:"workers"`
	IdleTimeout     time.Duration     `json:"idleTimeout"`               // 0: none
	NoClientTimeout time.Duration     `json:"noClientTimeout,omitempty"` // 0: none
	MaxLifetime     time.Duration     `json:"maxLifetime,omitempty"`     // 0: none
	DrainTimeout    time.Duration     `json:"drainTimeout"`              // after which a worker that is too many ends whatever it computes
}

// ClusterSubmission is a ClusterSpec with the key that makes submitting it twice
// the same as submitting it once.
type ClusterSubmission struct {
	Key   string // idempotency key; one is made when it is empty
	Spec  ClusterSpec
	Reuse bool // a cluster of that name that has not ended is the answer, whatever it was asked to be
}

// ClusterScale is how many workers a group is to have from now on.
type ClusterScale struct {
	ID       string // or its name
	Group    string // empty: the only one
	Count    int
	Adaptive bool // as the engine wants, from Min to Max; Count doesn't matter then
	Min, Max int
}

// ClusterQuery selects clusters, newest first.
type ClusterQuery struct {
	All            bool // those that have ended as well
	Infrastructure string
	Limit          int    // at most this many; 0 means 100
	After          string // id of the last cluster of the page before
}

// ClusterPage is one page of clusters.
type ClusterPage struct {
	Clusters []Cluster
	Next     string // After of the next page; empty at the end
}

// Cluster is a compute cluster, and how it stands. Its JSON form is the contract
// of -o json: absent values are null, times RFC 3339 in UTC.
type Cluster struct {
	ID             string        `json:"id"`
	Name           string        `json:"name"`
	Engine         string        `json:"engine"`
	State          ClusterState  `json:"state"`
	Infrastructure string        `json:"infrastructure"`
	Image          string        `json:"image"`
	Owner          string        `json:"owner"`
	Reason         *string       `json:"reason"`    // one line: why it ended or ends, or what it waits for
	Diagnosis      *Diagnosis    `json:"diagnosis"` // of the head, or of a cluster that failed
	CreatedAt      time.Time     `json:"createdAt"`
	StartedAt      *time.Time    `json:"startedAt"` // when the head first answered
	FinishedAt     *time.Time    `json:"finishedAt"`
	Head           ClusterHead   `json:"head"`
	Groups         []GroupStatus `json:"groups"`
	Clients        *int          `json:"clients"`   // that are connected; null where the head did not tell
	IdleSince      *time.Time    `json:"idleSince"` // since when it does nothing; null while it computes, or nobody knows
	EndsAt         *time.Time    `json:"endsAt"`    // when it ends by itself if nothing changes
	Warnings       []string      `json:"warnings"`  // such as versions that differ
	Dashboard      *string       `json:"dashboard"` // address, where a server shows it
	Spec           ClusterSpec   `json:"spec"`
}

// ClusterHead is how the head of a cluster stands.
type ClusterHead struct {
	Task     *string           `json:"task"` // its id
	State    *TaskState        `json:"state"`
	Versions map[string]string `json:"versions"` // of python, and of packages
}

// GroupStatus is how the workers of a group stand.
type GroupStatus struct {
	Name      string            `json:"name"`
	Wanted    int               `json:"wanted"`
	Ready     int               `json:"ready"`    // the head knows them
	Waiting   int               `json:"waiting"`  // their pods have not started, or the head does not know them yet
	Draining  int               `json:"draining"` // what they hold is moved to others, and then they end
	Lost      map[string]int    `json:"lost"`     // how many were replaced, by cause
	Diagnosis *Diagnosis        `json:"diagnosis"`
	Versions  map[string]string `json:"versions"` // of its first worker
}

// ClusterAccess is what a client of a cluster's engine needs: mutual TLS, with
// the key pair of the cluster.
type ClusterAccess struct {
	CA, Certificate string // PEM
	Key             Secret // PEM
}

// ClusterPort is what of a cluster's head is connected to.
type ClusterPort string

const (
	ClusterScheduler ClusterPort = "scheduler" // where clients of the engine connect, by TLS end to end
	ClusterDashboard ClusterPort = "dashboard" // HTTP, without what changes the cluster
)

// ClusterMember is what a task is to a cluster. Berth alone submits it.
type ClusterMember struct {
	Cluster string `json:"cluster"` // its id
	Group   string `json:"group"`
	Number  int    `json:"number"`
}

// Labels of the tasks of a cluster: its id, and the name of the group.
const (
	LabelCluster = "berth.run/cluster"
	LabelGroup   = "berth.run/group"
)

// ClusterSecretName names the Secret of a namespace that holds the TLS keys of a
// cluster.
func ClusterSecretName(id string) string { return "berth-cluster-" + id }

// Files of a cluster's Secret, and where they are in its pods.
const (
	ClusterSecretPath = "/var/run/berth/cluster"
	ClusterCAFile     = "ca.crt"
	ClusterCertFile   = "tls.crt"
	ClusterKeyFile    = "tls.key"
	ClusterOfferFile  = "callback.json" // where the head opens connections to, where there is such a place
)

const clusterPrefix = "k"

// NewClusterID returns the id of a cluster.
func NewClusterID(unique string) string { return clusterPrefix + unique }

// IsClusterID tells the id of a cluster from those of others, and from a name in
// most cases.
func IsClusterID(id string) bool { return strings.HasPrefix(id, clusterPrefix) && len(id) == 21 }

// NoSuchCluster is the error for an id or a name that no cluster has.
func NoSuchCluster(id string) error {
	return Errorf(CodeNotFound, "there is no cluster %s; berth cluster list shows those that there are", id)
}

// Validate says what is wrong with what a cluster is asked to be, and fills in
// names of groups.
func (s *ClusterSpec) Validate() error {
	if !slices.Contains(Engines, s.Engine) {
		return Errorf(CodeInvalid, "engine %q: there is %s", s.Engine, strings.Join(Engines, ", "))
	}
	if s.Name != "" {
		if err := ValidateName(s.Name); err != nil {
			return Errorf(CodeInvalid, "cluster %w", err)
		}
		if IsClusterID(s.Name) {
			return Errorf(CodeInvalid, "cluster name %q looks like the id of a cluster: choose another", s.Name)
		}
	}
	if len(s.Workers) == 0 {
		return Errorf(CodeInvalid, "a cluster has at least one group of workers (it may be of 0 workers)")
	}
	s.Head.Name, s.Head.Count = HeadGroup, 1
	if s.Head.Min != 0 || s.Head.Max != 0 {
		return Errorf(CodeInvalid, "a cluster has one head, no more and no fewer")
	}
	for i := range s.Workers {
		if s.Workers[i].Name == "" && len(s.Workers) == 1 {
			s.Workers[i].Name = WorkerGroup
		}
	}
	seen := map[string]bool{HeadGroup: true}
	most := 0
	for i := range s.Workers {
		g := &s.Workers[i]
		if !groupPattern.MatchString(g.Name) {
			return Errorf(CodeInvalid, "worker group %q: a name is at most 30 lower-case letters, digits and '-', beginning with a letter", g.Name)
		}
		if seen[g.Name] {
			return Errorf(CodeInvalid, "worker group %s: the name is taken; head is that of the head's own", g.Name)
		}
		seen[g.Name] = true
		if err := g.ValidateSize(); err != nil {
			return err
		}
		most += g.Most()
	}
	if most > MaxWorkers {
		return tooManyWorkers(most)
	}
	for _, l := range []struct {
		name  string
		value time.Duration
	}{{"idle timeout", s.IdleTimeout}, {"no-client timeout", s.NoClientTimeout}, {"maximal lifetime", s.MaxLifetime}} {
		if l.value < 0 || l.value > 0 && l.value < MinClusterLimit {
			return Errorf(CodeInvalid, "%s %s: use 0, for none, or %s and more", l.name, l.value, MinClusterLimit)
		}
	}
	if s.DrainTimeout <= 0 {
		s.DrainTimeout = DefaultDrainTimeout
	}
	for _, g := range append([]ClusterGroup{s.Head}, s.Workers...) {
		for _, labels := range []map[string]string{s.Labels, g.Labels} {
			for key, value := range labels { // those of Berth come with the task
				if err := ValidateLabel(key, value); err != nil {
					return Errorf(CodeInvalid, "%s: %w", g.Name, err)
				}
			}
		}
		spec := s.TaskSpec(g, 0, "k00000000000000000000")
		if err := spec.Validate(); err != nil {
			return Errorf(CodeInvalid, "%s: %w", g.Name, err)
		}
	}
	return nil
}

// ValidateSize says what is wrong with how many workers a group is to have.
func (g *ClusterGroup) ValidateSize() error {
	switch {
	case g.Count < 0 || g.Min < 0 || g.Max < 0:
		return Errorf(CodeInvalid, "worker group %s: %d workers: there can't be fewer than 0", g.Name, min(g.Count, g.Min, g.Max))
	case g.Min > 0 && g.Max == 0 || g.Min > g.Max:
		return Errorf(CodeInvalid, "worker group %s: from %d to %d workers: the greater number comes last", g.Name, g.Min, g.Max)
	case g.Most() > MaxWorkers:
		return tooManyWorkers(g.Most())
	}
	return nil
}

func tooManyWorkers(n int) error {
	return Errorf(CodeInvalid, "%d workers: a cluster has at most %d, as Kubernetes is made for 3,000 pods in a namespace: give each worker more cpu and memory instead", n, MaxWorkers)
}

// TaskSpec is the task that a member of a group is, without what the engine has
// to say of it.
func (s *ClusterSpec) TaskSpec(g ClusterGroup, number int, id string) TaskSpec {
	image := g.Image
	if image == "" {
		image = s.Image
	}
	labels := map[string]string{}
	for _, from := range []map[string]string{s.Labels, g.Labels} {
		for key, value := range from {
			labels[key] = value
		}
	}
	labels[LabelCluster], labels[LabelGroup] = id, g.Name
	name := s.Name + "-" + g.Name
	if g.Name != HeadGroup {
		name = fmt.Sprintf("%s-%d", name, number)
	}
	if s.Name == "" || ValidateName(name) != nil {
		name = ""
	}
	return TaskSpec{
		Name: name, Image: image, User: s.User, Infrastructure: s.Infrastructure, Pull: s.Pull,
		CPU: g.CPU, Memory: g.Memory, GPU: g.GPU, EphemeralStorage: g.EphemeralStorage, Labels: labels, Env: slices.Concat(s.Env, g.Env),
		Timeout: s.MaxLifetime, Cluster: &ClusterMember{Cluster: id, Group: g.Name, Number: number},
	}
}

// Same reports whether two clusters were asked for in the same way.
func (s *ClusterSpec) Same(other *ClusterSpec) bool { return reflect.DeepEqual(s, other) }

// GroupSize is how many workers a group is to have; see [ClusterGroup].
type GroupSize struct {
	Count int `json:"count"`
	Min   int `json:"min"`
	Max   int `json:"max"`

	At time.Time `json:"at"` // when that was said
}

// ClusterWanted is what people changed of a cluster since it was made.
type ClusterWanted struct {
	Sizes     map[string]GroupSize `json:"sizes,omitempty"` // by group
	DeletedAt *time.Time           `json:"deletedAt,omitempty"`
}

// Apply makes a spec what is wanted now.
func (w *ClusterWanted) Apply(s *ClusterSpec) {
	s.Workers = slices.Clone(s.Workers)
	for i := range s.Workers {
		if size, ok := w.Sizes[s.Workers[i].Name]; ok {
			s.Workers[i].Count, s.Workers[i].Min, s.Workers[i].Max = size.Count, size.Min, size.Max
		}
	}
}

// ClusterRecord is a cluster as it is stored, with what nobody is shown.
type ClusterRecord struct {
	Key     string
	Caller  Caller  // in whose name its tasks are
	Cluster Cluster // its Spec as it is wanted now
	Wanted  ClusterWanted
	Keeping ClusterKeeping
}

// Shown is the cluster as people see it: one that was deleted is stopping from
// then on, whoever keeps it knows of it or not.
func (r *ClusterRecord) Shown() Cluster {
	c := r.Cluster
	if r.Wanted.DeletedAt != nil && c.State != ClusterStopping && !c.State.Terminal() {
		reason := "it was deleted"
		c.State, c.Reason, c.Diagnosis, c.EndsAt, c.IdleSince = ClusterStopping, &reason, nil, nil, nil
	}
	return c
}

// ClusterKeeping is what is kept of a cluster so that whoever goes on with it
// does as the one before would have.
type ClusterKeeping struct {
	Next     map[string]int        `json:"next"`               // by group: the number of the next member
	Head     string                `json:"head,omitempty"`     // id of its task
	Members  map[string]Membership `json:"members,omitempty"`  // the workers that are not known to have ended, by task
	Targets  map[string]int        `json:"targets,omitempty"`  // by adaptive group: how many workers it has
	Mark     string                `json:"mark,omitempty"`     // of the head, while it does nothing
	NoClient *time.Time            `json:"noClient,omitempty"` // since when no client is connected
	HeadSeen *time.Time            `json:"headSeen,omitempty"` // when the head's program was first seen to run
	Failing  map[string]Failing    `json:"failing,omitempty"`  // by group: members that ended before they were ready
	Failed   bool                  `json:"failed,omitempty"`   // it ends as nobody wanted
}

// Membership is what is kept of a worker.
type Membership struct {
	Group    string     `json:"group"`
	Ready    bool       `json:"ready,omitempty"`    // the head knew it
	Draining *time.Time `json:"draining,omitempty"` // since when
	Dropped  bool       `json:"dropped,omitempty"`  // its end is wanted
}

// Failing is how often members of a group ended in a row before they were ready.
type Failing struct {
	Count     int        `json:"count"`
	At        time.Time  `json:"at"`    // when the last of them ended
	Until     time.Time  `json:"until"` // none is made before
	Diagnosis *Diagnosis `json:"diagnosis,omitempty"`
}
