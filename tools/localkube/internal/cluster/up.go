package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/build"
	"github.com/berth-run/berth/tools/localkube/internal/debian"
	"github.com/berth-run/berth/tools/localkube/internal/progress"
)

// programs are the paths of what was built.
type programs struct{ kubernetes, containerd, pause, coredns, metrics, kwok string }

// Up brings the cluster up, or finds that it is. What an earlier run left half done is removed first.
func (c *Cluster) Up(ctx context.Context, wanted Wanted, builder *build.Builder, p *progress.Printer) (err error) {
	unlock, err := c.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	began := time.Now()
	if c.healthy(ctx) {
		if had, err := c.had(); err == nil && wanted.metBy(had) {
			p.Line("Cluster %s is up; its kubeconfig is %s", c.Name, c.Kubeconfig())
			return nil
		}
		p.Line(" • Cluster %s is up, but with other options: it is made anew", c.Name)
	}
	if c.leftovers() {
		if err := p.Step("Removed what was left of "+c.Name, func() error { return c.remove(ctx) }); err != nil {
			return err
		}
	}
	if wanted.MaxPods == 0 {
		wanted.MaxPods = MaxPods
	}
	packages := slices.Clone(debian.Control)
	if !wanted.ControlPlaneOnly {
		packages = append(packages, debian.Node...)
	}
	if err := debian.Ensure(ctx, p, packages); err != nil {
		return err
	}
	built, err := c.build(ctx, wanted, builder)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if ctx.Err() != nil {
			err = errors.Join(fmt.Errorf("bringing up cluster %s was interrupted; what had been started is ended", c.Name), c.remove(cleanCtx))
			return
		}
		err = errors.Join(err, c.stop(cleanCtx)) // nothing half done is left, but the files: logs tell why
	}()
	for _, action := range c.actions(wanted, built) {
		if err := p.Step(action.what, func() error { return action.do(ctx) }); err != nil {
			return err
		}
	}
	content, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	if err := c.write("wanted.json", string(content)+"\n"); err != nil {
		return err
	}
	p.Line("Cluster %s is up after %.1fs; its kubeconfig is %s", c.Name, time.Since(began).Seconds(), c.Kubeconfig())
	return nil
}

func (c *Cluster) build(ctx context.Context, wanted Wanted, builder *build.Builder) (programs, error) {
	var built programs
	for _, part := range []struct {
		program build.Program
		needed  bool
		path    *string
	}{
		{build.Kubernetes, true, &built.kubernetes},
		{build.Containerd, !wanted.ControlPlaneOnly, &built.containerd},
		{build.Pause, !wanted.ControlPlaneOnly, &built.pause},
		{build.CoreDNS, wanted.DNS, &built.coredns},
		{build.MetricsServer, wanted.Metrics, &built.metrics},
		{build.Kwok, wanted.KwokNodes > 0, &built.kwok},
	} {
		if !part.needed {
			continue
		}
		path, err := builder.Binary(ctx, part.program)
		if err != nil {
			return built, err
		}
		*part.path = path
	}
	return built, nil
}

// healthy says whether all components run and the API server answers.
func (c *Cluster) healthy(ctx context.Context) bool {
	all := c.Processes().All()
	if len(all) == 0 || c.stopped() || c.plan.Index < 0 || !c.namespace().Exists() {
		return false
	}
	for _, p := range all {
		if !p.Alive() {
			return false
		}
	}
	client, err := c.client()
	if err != nil || !client.Ready(ctx) {
		return false
	}
	_, err = c.had()
	return err == nil
}

// leftovers says whether anything of an earlier run is there.
func (c *Cluster) leftovers() bool {
	for _, path := range []string{c.file("pki"), c.run} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return c.plan.Index >= 0
}
