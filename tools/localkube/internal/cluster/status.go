package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/berth-run/berth/tools/localkube/internal/process"
)

// Status writes how the cluster stands and says whether it is up.
func (c *Cluster) Status(ctx context.Context, w io.Writer) bool {
	all := c.Processes().All()
	if len(all) == 0 && c.plan.Index >= 0 {
		fmt.Fprintf(w, "%s: broken: its files are gone, but not what runs: localkube down --name %[1]s ends it\n", c.Name)
		return false
	}
	if len(all) == 0 {
		fmt.Fprintf(w, "%s: down\n", c.Name)
		return false
	}
	up := c.healthy(ctx)
	state := "up"
	if !up {
		state = "broken: localkube up --name " + c.Name + " makes it anew"
	}
	fmt.Fprintf(w, "%s: %s\n  kubeconfig    %s\n  API server    %s\n  host address  %s (of this machine, as pods see it)\n", c.Name, state, c.Kubeconfig(), c.server(), c.HostAddress())
	slices.SortFunc(all, func(a, b process.Process) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range all {
		alive := "runs"
		if !p.Alive() {
			alive = "has ended: localkube logs " + p.Name + " --name " + c.Name
		}
		fmt.Fprintf(w, "  %-24s pid %-7d %s\n", p.Name, p.PID, alive)
	}
	return up
}
