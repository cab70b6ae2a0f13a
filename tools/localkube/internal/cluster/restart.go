package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/process"
)

// Restart ends a component, by SIGKILL at once when it is to be killed, and
// starts it as it was. An API server is waited for until it is ready.
func (c *Cluster) Restart(ctx context.Context, component string, kill bool) error {
	all := c.Processes().All()
	i := slices.IndexFunc(all, func(p process.Process) bool { return p.Name == component })
	if i < 0 {
		var names []string
		for _, p := range all {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		return fmt.Errorf("cluster %s runs no %q; it runs: %s", c.Name, component, strings.Join(names, ", "))
	}
	command, err := all[i].Command()
	if err != nil {
		return err
	}
	grace := 10 * time.Second
	if kill {
		grace = 0
	}
	if err := all[i].Stop(ctx, grace); err != nil {
		return err
	}
	if err := c.Processes().Start(component, c.namespace(), command[0], command[1:]...); err != nil {
		return err
	}
	if component != "kube-apiserver" {
		return nil
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	return c.await(ctx, component, time.Minute, func() (bool, error) { return client.Ready(ctx), nil })
}
