package berth

import (
	"strings"
	"time"
)

// Grace is how long stalls are tolerated before an attempt fails.
type Grace struct {
	Start  time.Duration // start_timeout: until the main container must have started
	Pull   time.Duration // pull_grace: image not found or unauthorized
	Config time.Duration // config_grace: missing ConfigMap, mount, sandbox
}

// DefaultGrace holds where infra.yml says nothing.
var DefaultGrace = Grace{Start: 10 * time.Minute, Pull: 30 * time.Second, Config: 60 * time.Second}

// InfrastructureState is how an infrastructure stands to us.
type InfrastructureState string

const (
	InfraUnknown      InfrastructureState = "unknown" // not asked yet
	InfraReady        InfrastructureState = "ready"
	InfraUnreachable  InfrastructureState = "unreachable"
	InfraUnauthorized InfrastructureState = "unauthorized"
	InfraForbidden    InfrastructureState = "forbidden"
	InfraReplaced     InfrastructureState = "replaced" // another namespace answers under the same name
	InfraRemoved      InfrastructureState = "removed"  // no longer in infra.yml, but tasks of it live
)

// Infrastructure is one entry of infra.yml and what is known of it.
type Infrastructure struct {
	Name          string              `json:"name"`
	Kind          string              `json:"kind"`
	Address       string              `json:"address"`
	Namespace     string              `json:"namespace"`
	State         InfrastructureState `json:"state"`
	Reason        *string             `json:"reason"`      // of any state but ready
	LastSeenAt    *time.Time          `json:"lastSeenAt"`  // when the cluster last answered
	ServerVersion *string             `json:"version"`     // of the API server
	Default       bool                `json:"default"`     // used when --on is not given
	LiveTasks     int                 `json:"liveTasks"`   // not ended
	QueuedTasks   int                 `json:"queuedTasks"` // of these, not yet admitted
	Holder        *string             `json:"holder"`      // URL of the server that reconciles it, where several share a store
}

// CheckStatus is the outcome of one row of a check.
type CheckStatus string

const (
	CheckOK      CheckStatus = "OK"
	CheckMissing CheckStatus = "missing"
	CheckWarning CheckStatus = "warning"
	CheckFailed  CheckStatus = "failed"
)

// CheckGroup is what rows of a check have in common. Those of the verbs of a
// profile of create-kubeconfig are in the group "profile NAME".
type CheckGroup string

const (
	CheckCluster   CheckGroup = "cluster"   // the way to it, and its version
	CheckNamespace CheckGroup = "namespace" // its rules, and what is left of its quotas
	CheckPods      CheckGroup = "pods"      // what only a pod can prove

	checkProfile = "profile "
)

// CheckProfile is the group of the verbs of a profile.
func CheckProfile(name string) CheckGroup { return checkProfile + CheckGroup(name) }

// Profile returns the profile whose verbs a group is of, "" for other groups.
func (g CheckGroup) Profile() string {
	name, found := strings.CutPrefix(string(g), checkProfile)
	if !found {
		return ""
	}
	return name
}

// CheckRow is one line of what was checked of an infrastructure.
type CheckRow struct {
	Group  CheckGroup  `json:"group"`
	What   string      `json:"what"` // such as "create pods"
	Status CheckStatus `json:"status"`
	Detail string      `json:"detail"` // what was found, or what it is needed for
	Remedy string      `json:"remedy"` // empty when OK
}

// InfrastructureCheck is the page that a cluster's engineer reads.
type InfrastructureCheck struct {
	Name          string        `json:"name"`
	Namespace     string        `json:"namespace"`
	Address       string        `json:"address"`
	ServerVersion string        `json:"serverVersion"`
	Latency       time.Duration `json:"latencyNanoseconds"`
	OK            bool          `json:"ok"` // nothing that tasks need is missing
	Rows          []CheckRow    `json:"rows"`
}

// Add adds rows of a group. A failure, or a missing verb, is one of what tasks need.
func (c *InfrastructureCheck) Add(group CheckGroup, rows ...CheckRow) {
	for _, row := range rows {
		if row.Group == "" {
			row.Group = group
		}
		c.OK = c.OK && row.Status != CheckFailed && row.Status != CheckMissing
		c.Rows = append(c.Rows, row)
	}
}

// InfrastructureSource is an entry to be added to infra.yml. Exactly one of
// Kubeconfig and Content is set; over the network it is Content, which names no
// file and no program: they would be the server's.
type InfrastructureSource struct {
	Name       string
	Kind       string // KindKube when empty
	Address    string // of a Docker Engine; its usual socket when empty
	Kubeconfig string // path on the machine of the infra.yml
	Content    Secret // a kubeconfig's text, to be kept beside infra.yml
	Context    string // of the kubeconfig; its current one when empty
	Namespace  string // the context's own when empty
}
