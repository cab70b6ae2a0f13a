package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/process"
)

// Restart ends a component, by SIGKILL at once when it is to be killed, and
// starts it as it was. An API server is waited for until it is ready.
func (c *Cluster) Restart(ctx context.Context, component string, kill bool) error {
	if err := c.Stop(ctx, component, kill); err != nil {
		return err
	}
	return c.Start(ctx, component)
}

// Stop ends a component, which Start starts again as it was.
func (c *Cluster) Stop(ctx context.Context, component string, kill bool) error {
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
	content, err := json.Marshal(command)
	if err != nil {
		return err
	}
	if err := c.write(stoppedFile(component), string(content)); err != nil {
		return err
	}
	grace := 10 * time.Second
	if kill {
		grace = 0
	}
	return all[i].Stop(ctx, grace)
}

// Start starts a component that was stopped. An API server is waited for until
// it is ready.
func (c *Cluster) Start(ctx context.Context, component string) error {
	file := c.file(stoppedFile(component))
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s of cluster %s was not stopped", component, c.Name)
	}
	var command []string
	if err == nil {
		err = json.Unmarshal(content, &command)
	}
	if err != nil {
		return fmt.Errorf("how %s of cluster %s was started is not known: %w", component, c.Name, err)
	}
	if err := c.Processes().Start(component, c.namespace(), command[0], command[1:]...); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
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

// stoppedFile says how a component that is stopped was started.
func stoppedFile(component string) string {
	return "stopped-" + filepath.Base(component) + ".json"
}

// stopped reports whether a component is stopped.
func (c *Cluster) stopped() bool {
	files, _ := filepath.Glob(c.file(stoppedFile("*")))
	return len(files) > 0
}
