package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/build"
	"github.com/berth-run/berth/tools/localkube/internal/certificate"
	"github.com/berth-run/berth/tools/localkube/internal/debian"
	"github.com/berth-run/berth/tools/localkube/internal/image"
	"github.com/berth-run/berth/tools/localkube/internal/mount"
	"github.com/berth-run/berth/tools/localkube/internal/progress"
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

// programs are the paths of what was built.
type programs struct{ kubernetes, pause, coredns, metrics, kwok string }

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

// etcdAddress is where etcd serves, inside the cluster's network namespace.
var etcdAddress = netip.MustParseAddrPort("127.0.0.1:2379")

type action struct {
	what string
	do   func(context.Context) error
}

// actions are the steps from nothing to a cluster, in order.
func (c *Cluster) actions(wanted Wanted, built programs) []action {
	k := built.kubernetes
	actions := []action{
		{"Network and certificates", func(context.Context) error { return c.prepare() }},
		{"API server", func(ctx context.Context) error {
			if err := c.startEtcd(k); err != nil {
				return err
			}
			if !wanted.ControlPlaneOnly {
				if err := c.startContainerd(); err != nil {
					return err
				}
			}
			// An API server that finds no etcd tries again only after a second.
			if err := c.await(ctx, "etcd", time.Minute, func() (bool, error) { return c.namespace().Listening(etcdAddress), nil }); err != nil {
				return err
			}
			if err := c.startAPIServer(k); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.await(ctx, "kube-apiserver", time.Minute, func() (bool, error) { return client.Ready(ctx), nil })
		}},
		{"Controller manager and scheduler", func(ctx context.Context) error {
			return errors.Join(c.startControllerManager(k), c.startScheduler(k), c.grantKubelet(ctx))
		}},
	}
	if !wanted.ControlPlaneOnly {
		actions = append(actions,
			action{"Node ready", func(ctx context.Context) error { return c.node(ctx, wanted, built) }},
		)
	}
	if wanted.KwokNodes > 0 {
		actions = append(actions, action{fmt.Sprintf("%d simulated nodes ready", wanted.KwokNodes), func(ctx context.Context) error {
			if err := errors.Join(c.startPodLogs(), c.startKwok(ctx, built.kwok, wanted.KwokNodes)); err != nil {
				return err
			}
			return c.await(ctx, "kwok", time.Minute, func() (bool, error) {
				ready, err := c.nodesReady(ctx)
				return ready >= wanted.KwokNodes, err
			})
		}})
	}
	if wanted.DNS {
		actions = append(actions, action{"DNS", func(ctx context.Context) error {
			if err := c.startDNS(built.coredns); err != nil {
				return err
			}
			return c.await(ctx, "coredns", time.Minute, func() (bool, error) {
				return c.namespace().Listening(netip.AddrPortFrom(c.plan.DNS(), 53)), nil
			})
		}})
	}
	if wanted.Metrics {
		actions = append(actions, action{"Metrics", func(ctx context.Context) error {
			if err := errors.Join(c.startMetrics(built.metrics), c.registerMetrics(ctx)); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.await(ctx, "metrics-server", time.Minute, func() (bool, error) {
				return client.Get(ctx, "/apis/metrics.k8s.io/v1beta1/nodes", nil) == nil, nil
			})
		}})
	}
	return append(actions, action{"Namespace default", func(ctx context.Context) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		return c.await(ctx, "kube-controller-manager", time.Minute, func() (bool, error) {
			return client.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil) == nil, nil
		})
	}})
}

// prepare makes all that components find when they start.
func (c *Cluster) prepare() error {
	if err := c.allocate(); err != nil {
		return err
	}
	if err := c.namespace().Make(); err != nil {
		return err
	}
	if err := c.plan.Join(c.namespace(), c.link()); err != nil {
		return err
	}
	if err := c.group().Make(); err != nil {
		return err
	}
	raiseWatchLimits()
	if err := c.certificates(); err != nil {
		return err
	}
	return c.write("host-ip", c.plan.Host().String()+"\n")
}

func (c *Cluster) certificates() error {
	pki := c.pki()
	ca, err := pki.NewAuthority("ca")
	if err != nil {
		return err
	}
	front, err := pki.NewAuthority("front-proxy-ca")
	if err != nil {
		return err
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	server := certificate.Subject{CommonName: "kube-apiserver", Addresses: []netip.Addr{c.plan.Node(), c.plan.APIService(), local},
		Names: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}}
	_, keyErr := pki.Key("sa")
	err = errors.Join(keyErr,
		ca.Issue("apiserver", server),
		ca.Issue("admin", certificate.Subject{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}),
		ca.Issue("apiserver-kubelet-client", certificate.Subject{CommonName: "kube-apiserver-kubelet-client"}),
		ca.Issue("controller-manager", certificate.Subject{CommonName: "system:kube-controller-manager"}),
		ca.Issue("scheduler", certificate.Subject{CommonName: "system:kube-scheduler"}),
		ca.Issue("proxy", certificate.Subject{CommonName: "system:kube-proxy"}),
		ca.Issue("kubelet", certificate.Subject{CommonName: "system:node:" + c.Name, Organization: []string{"system:nodes"}, Addresses: []netip.Addr{c.plan.Node(), local}, Names: []string{c.Name}}),
		front.Issue("front-proxy-client", certificate.Subject{CommonName: "front-proxy-client"}))
	for _, holder := range []string{"admin", "controller-manager", "scheduler", "proxy", "kubelet"} {
		err = errors.Join(err, ca.Kubeconfig(pki.Path(holder+".kubeconfig"), c.server(), "localkube-"+c.Name, holder))
	}
	return errors.Join(err, ca.Kubeconfig(c.Kubeconfig(), c.server(), "localkube-"+c.Name, "admin"))
}

// node starts what runs pods, and loads the images that a cluster begins with.
func (c *Cluster) node(ctx context.Context, wanted Wanted, built programs) error {
	if err := c.await(ctx, "containerd", 30*time.Second, func() (bool, error) {
		return c.ctr(ctx, "version") == nil, nil
	}); err != nil {
		return err
	}
	if err := os.MkdirAll(c.file("kubelet"), 0o755); err != nil {
		return err
	}
	if err := mount.BindShared(c.file("kubelet"), c.kubeletFolder()); err != nil {
		return err
	}
	if err := errors.Join(c.startKubelet(built.kubernetes, wanted.MaxPods, wanted.DNS), c.startProxy(built.kubernetes)); err != nil {
		return err
	}
	pause, busybox := c.file("pause.tar"), c.file("busybox.tar")
	program := "/bin/busybox"
	if found, _ := filepath.Glob("/usr/bin/busybox"); len(found) > 0 {
		program = found[0]
	}
	if err := errors.Join(image.WritePause(pause, built.pause), image.WriteBusybox(busybox, program)); err != nil {
		return err
	}
	if err := errors.Join(c.Load(ctx, pause), c.Load(ctx, busybox), os.Remove(pause), os.Remove(busybox)); err != nil {
		return err
	}
	return c.await(ctx, "kubelet", time.Minute, func() (bool, error) {
		ready, err := c.nodesReady(ctx)
		return ready > 0, err
	})
}

// Load puts the images of an archive (docker save, or an OCI layout in a tar) where the node has them.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	if _, err := os.Stat(archive); err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	if _, err := os.Stat(c.socket("containerd")); err != nil {
		return fmt.Errorf("load %s into cluster %s: it has no containerd that runs: bring it up with localkube up --name %s", archive, c.Name, c.Name)
	}
	if err := c.ctr(ctx, "images", "import", archive); err != nil {
		return fmt.Errorf("load %s into cluster %s: %w", archive, c.Name, err)
	}
	return nil
}

func (c *Cluster) ctr(ctx context.Context, arguments ...string) error {
	command := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.socket("containerd"), "--connect-timeout", "2s", "--namespace", "k8s.io"}, arguments...)...)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return nil
}

// await asks until something holds. A component that dies meanwhile, or takes too long, is named with
// the end of its log.
func (c *Cluster) await(ctx context.Context, component string, limit time.Duration, holds func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := holds()
		if ok {
			return nil
		}
		for _, p := range c.Processes().All() {
			if !p.Alive() {
				return fmt.Errorf("%s has ended; the end of its log (%s):\n%s", p.Name, c.Processes().Log(p.Name), c.Processes().Tail(p.Name, 20))
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s (%v); the end of its log (%s):\n%s", component, limit, err, c.Processes().Log(component), c.Processes().Tail(component, 20))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// healthy says whether all components run and the API server answers.
func (c *Cluster) healthy(ctx context.Context) bool {
	all := c.Processes().All()
	if len(all) == 0 || c.plan.Index < 0 || !c.namespace().Exists() {
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
