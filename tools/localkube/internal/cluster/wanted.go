package cluster

import (
	"encoding/json"
	"os"
)

// Wanted is what a cluster shall have.
type Wanted struct {
	ControlPlaneOnly bool // no kubelet, no containerd
	KwokNodes        int  // simulated nodes
	DNS, Metrics     bool
	MaxPods          int // of the node; 0 for the usual number
}

// MaxPods is the usual number of pods of a node.
const MaxPods = 110

// metBy says whether a cluster that was brought up with other options has all that is wanted. More than
// that does no harm: two programs that want different parts can share a cluster.
func (w Wanted) metBy(had Wanted) bool {
	return w.ControlPlaneOnly == had.ControlPlaneOnly && w.KwokNodes == had.KwokNodes &&
		(had.DNS || !w.DNS) && (had.Metrics || !w.Metrics) && (w.MaxPods == 0 || w.MaxPods == had.MaxPods)
}

// had reads what the running cluster was brought up with; the file is written when it is complete.
func (c *Cluster) had() (Wanted, error) {
	var had Wanted
	content, err := os.ReadFile(c.file("wanted.json"))
	if err == nil {
		err = json.Unmarshal(content, &had)
	}
	return had, err
}
