package berth

import "time"

// InfrastructureConfig is one entry of infra.yml, resolved: references are
// replaced by their values, paths are absolute, defaults are filled in. Its
// secrets are of type [Secret], which prints as "[redacted]".
type InfrastructureConfig struct {
	Name        string
	Kind        string            // KindKube or KindDocker
	Labels      map[string]string // by which tasks choose it
	Address     string            // kube: optional; the kubeconfig's own server is what counts. docker: of the Engine
	CallbackTo  string            // optional
	Namespace   string            // empty: the kubeconfig context's own
	Registry    string            // optional: HOST[:PORT][/PATH] where pods pull packages from
	AgentImage  string            // optional: where pods pull the agent from; by default Registry
	Credentials Credentials
	Limits      Limits
	Defaults    Defaults
	Pod         PodConfig
	DFS         *DFS   // mount_dfs; nil without
	Proxy       *Proxy // proxy_address and proxy_bypass; nil without
	Grace       Grace

	TLS *TLS // of kind docker; nil for a socket

	// InsecureSkipTLSVerify turns off what is never off by itself.
	InsecureSkipTLSVerify bool
}

// Kinds of infrastructures.
const (
	KindKube   = "kube"   // a namespace of a Kubernetes cluster
	KindDocker = "docker" // a Docker Engine
)

// TLS says how to reach a Docker Engine over tcp://. Each of the three is PEM,
// or the absolute path of a file that is read when it is used, or neither.
type TLS struct {
	CA, CAFile     string // whose certificates to trust; neither: the system's
	Cert, CertFile string // ours; neither: none
	Key            Secret
	KeyFile        string
}

// Credentials say how to reach a cluster. Exactly one mechanism is set.
type Credentials struct {
	Mechanism string // "config", "service-account" or "in-cluster"

	// Of mechanism config: exactly one of Path and Content.
	Path    string // absolute
	Content Secret // a kubeconfig's text (from content: or file:)
	Context string // empty: the kubeconfig's current-context

	// Of mechanism service-account. Exactly one of Token and TokenFile, of CA and CAFile.
	Host      string // https://host:port
	Token     Secret
	TokenFile string // read again when it changes
	CA        string // PEM
	CAFile    string
}

// Limits bound what Berth does to an infrastructure.
type Limits struct {
	MaxPods             int     // pods of Berth at once; default 500
	MaxCreatesPerSecond float64 // default 0: as fast as the API server answers
	FairShare           string  // what room is shared between evenly: FairShareOwner (default), FairShareNone, or the key of a label
}

// What FairShare may be, but for the key of a label.
const (
	FairShareOwner = "owner"
	FairShareNone  = "none"
)

// DefaultLimits hold where infra.yml says nothing. 500 pods keep well below
// Kubernetes' own 3,000 a namespace; how many creates are in flight is bounded anyway.
var DefaultLimits = Limits{MaxPods: 500}

// Defaults are what a task that doesn't say otherwise asks for.
type Defaults struct {
	CPU    Quantity
	Memory Quantity
}

// PodConfig is what every pod of an infrastructure gets.
type PodConfig struct {
	NodeSelector     map[string]string
	Tolerations      []Toleration
	Labels           map[string]string
	ServiceAccount   string
	PriorityClass    string
	ImagePullSecrets []string
	RuntimeClass     string
	Security         string // "restricted", "baseline", "privileged"; empty: found out by a dry run
}

// Toleration lets pods onto nodes with a taint; the fields are Kubernetes' own.
type Toleration struct {
	Key      string
	Operator string // Exists or Equal
	Value    string
	Effect   string // NoSchedule, PreferNoSchedule, NoExecute; empty: all
	Seconds  *int64
}

// Secret is a string that is never printed, logged or marshalled.
type Secret string

func (Secret) String() string               { return "[redacted]" }
func (Secret) GoString() string             { return "[redacted]" }
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Reveal returns the secret itself, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

// MaxGrace bounds what infra.yml may ask for; longer is a mistake of units.
const MaxGrace = 7 * 24 * time.Hour

// LogLimits say how long stored logs of ended tasks are kept. What is zero has
// no limit. Logs of tasks that live are always kept.
type LogLimits struct {
	MaxAge  time.Duration // since the task's end
	MaxSize int64         // bytes on the disk of all logs together; the oldest go first
}

// DefaultLogLimits hold where infra.yml says nothing.
var DefaultLogLimits = LogLimits{MaxSize: 10 << 30}
