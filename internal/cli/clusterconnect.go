package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/control"
)

// connectFlags are the flags of berth cluster connect.
type connectFlags struct {
	port, dashboardPort int
	python              string
	anyVersions         bool
}

// connection is what -o json prints of one.
type connection struct {
	Cluster   string `json:"cluster"`
	ID        string `json:"id"`
	Address   string `json:"address"`
	CAFile    string `json:"caFile"`
	CertFile  string `json:"certFile"`
	KeyFile   string `json:"keyFile"`
	Dashboard string `json:"dashboard"`
}

func (a *app) clusterConnectCommand() *cobra.Command {
	var f connectFlags
	cmd := &cobra.Command{
		Use: "connect NAME", Short: "Open a tunnel to a cluster, and print the Python to paste",
		Long: `Open a tunnel to the head of a cluster, for as long as this command runs, and print
what to write in Python to use it. The tunnel connects anew by itself, also after
this machine slept. What is sent is encrypted end to end, with keys that are this
cluster's alone and are deleted with it: they are in files that only you can read,
as long as the tunnel is open.

The versions of Python and Dask here and in the cluster have to be the same;
--python names the Python to compare with.`,
		Args: exactly(1, "the name or the id of a cluster"), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				err := a.connectCluster(ctx, service, args[0], &f)
				if ctx.Err() != nil {
					return nil // that is how it ends
				}
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.port, "port", 0, "local port for clients (default: a free one)")
	flags.IntVar(&f.dashboardPort, "dashboard-port", 0, "local port for the dashboard (default: a free one)")
	flags.StringVar(&f.python, "python", "", "the Python whose versions are compared with those of the cluster (default: python3, where that has distributed)")
	flags.BoolVar(&f.anyVersions, "any-versions", false, "connect though versions differ")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) connectCluster(ctx context.Context, service berth.Service, name string, f *connectFlags) error {
	cluster, err := service.Cluster(ctx, name)
	if err != nil {
		return err
	}
	if cluster, err = a.awaitCluster(ctx, service, cluster, func(c *berth.Cluster) bool { return c.State == berth.ClusterRunning }, 0); err != nil {
		return err
	}
	if err := a.compareVersions(ctx, &cluster, f); err != nil {
		return err
	}
	access, err := service.ClusterAccess(ctx, cluster.ID)
	if err != nil {
		return err
	}
	keys, remove, err := writeKeys(&access)
	if err != nil {
		return err
	}
	defer remove()
	scheduler, err := listenLocal(ctx, f.port, "--port")
	if err != nil {
		return err
	}
	defer func() { _ = scheduler.Close() }()
	dashboard, err := listenLocal(ctx, f.dashboardPort, "--dashboard-port")
	if err != nil {
		return err
	}
	defer func() { _ = dashboard.Close() }()
	var tunnels sync.WaitGroup
	defer tunnels.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unreached := func(err error) {
		fmt.Fprintf(a.stderr, "berth: cluster %s can't be reached: %s\n", cluster.Name, oneLine(err.Error()))
	}
	tunnels.Go(func() {
		control.Tunnel(ctx, scheduler, func(ctx context.Context) (net.Conn, error) {
			return dialHead(ctx, service, cluster.ID, berth.ClusterScheduler)
		}, unreached)
	})
	link := control.LocalDashboard(ctx, dashboard, cluster.ID, func(ctx context.Context) (net.Conn, error) {
		return dialHead(ctx, service, cluster.ID, berth.ClusterDashboard)
	}, a.logger())
	c := connection{
		Cluster: cluster.Name, ID: cluster.ID, Address: "tls://" + scheduler.Addr().String(), Dashboard: link,
		CAFile: filepath.Join(keys, berth.ClusterCAFile), CertFile: filepath.Join(keys, berth.ClusterCertFile), KeyFile: filepath.Join(keys, berth.ClusterKeyFile),
	}
	if a.output == "table" {
		a.tellConnection(&c)
	} else if err := a.printLine(c); err != nil {
		return err
	}
	return a.untilClusterEnds(ctx, service, &cluster)
}

// tellConnection prints what to write in Python, and where to look.
func (a *app) tellConnection(c *connection) {
	fmt.Fprintf(a.stdout, `from dask.distributed import Client
from distributed import Security

client = Client(%q, security=Security(
    tls_ca_file=%q,
    tls_client_cert=%q,
    tls_client_key=%q,
    require_encryption=True))
`, c.Address, c.CAFile, c.CertFile, c.KeyFile)
	fmt.Fprintf(a.stderr, "berth: the lines above connect Python to cluster %s, as long as this command runs; end it with Ctrl-C\n", c.Cluster)
	fmt.Fprintf(a.stderr, "berth: dashboard: %s\n", c.Dashboard)
}

// untilClusterEnds waits until the cluster or the context ends.
func (a *app) untilClusterEnds(ctx context.Context, service berth.Service, cluster *berth.Cluster) error {
	said := ""
	for {
		for now, err := range service.WatchCluster(ctx, cluster.ID) {
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				break // it is looked for again
			}
			*cluster = now
			if cluster.State == berth.ClusterStopping || cluster.State.Terminal() {
				reason := "it ended"
				if cluster.Reason != nil {
					reason = oneLine(*cluster.Reason)
				}
				fmt.Fprintf(a.stderr, "berth: cluster %s is %s: %s\n", cluster.Name, cluster.State, reason)
				if cluster.State == berth.ClusterFailed || cluster.Diagnosis != nil {
					return a.clusterEnded(cluster)
				}
				return nil
			}
			if note := clusterNote(cluster); note != said && cluster.IdleSince == nil {
				if said = note; note != "" {
					fmt.Fprintf(a.stderr, "berth: %s\n", clusterStanding(cluster))
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// writeKeys puts the key pair into files that only this user can read.
func writeKeys(access *berth.ClusterAccess) (dir string, remove func(), err error) {
	if dir, err = os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "berth-cluster-"); err != nil {
		return "", nil, fmt.Errorf("no directory for the keys of the cluster can be made: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) }
	for name, text := range map[string]string{berth.ClusterCAFile: access.CA, berth.ClusterCertFile: access.Certificate, berth.ClusterKeyFile: access.Key.Reveal()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			remove()
			return "", nil, fmt.Errorf("the keys of the cluster can't be written: %w", err)
		}
	}
	return dir, remove, nil
}

func listenLocal(ctx context.Context, port int, flag string) (net.Listener, error) {
	if port < 0 || port > 65535 {
		return nil, fmt.Errorf("%s %d: a port is a number up to 65535", flag, port)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, fmt.Errorf("%s %d can't be listened on: %w: choose another, or leave it out", flag, port, err)
	}
	return listener, nil
}

// dialPatience is for how long it is tried to reach a head: servers restart, and
// this machine may have slept.
const dialPatience = 30 * time.Second

// dialHead connects to the head of a cluster, and tries for a while.
func dialHead(ctx context.Context, service berth.Service, id string, port berth.ClusterPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	wait := 100 * time.Millisecond
	for {
		conn, err := service.DialCluster(ctx, id, port)
		if err == nil || berth.Lasting(err) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
			wait = min(2*wait, 2*time.Second)
		}
	}
}

// versionsProgram prints the versions of a Python and its packages.
const versionsProgram = `import json, sys
versions = {"python": "%d.%d.%d" % sys.version_info[:3]}
try:
    import dask, distributed
    versions.update(dask=dask.__version__, distributed=distributed.__version__)
except ImportError as e:
    versions["missing"] = str(e)
print(json.dumps(versions))`

// compareVersions refuses to connect a Python to a cluster that would not
// understand each other.
func (a *app) compareVersions(ctx context.Context, cluster *berth.Cluster, f *connectFlags) error {
	for _, warning := range cluster.Warnings {
		fmt.Fprintf(a.stderr, "berth: %s\n", oneLine(warning))
	}
	python := f.python
	if python == "" {
		python = "python3"
	}
	var out, wrong bytes.Buffer
	run := exec.CommandContext(ctx, python, "-c", versionsProgram)
	run.Stdout, run.Stderr = &out, &wrong
	var versions map[string]string
	err := run.Run()
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &versions)
	}
	switch {
	case err != nil && f.python == "":
		return nil // there may be none here
	case err != nil:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("--python %s: it can't tell its versions: %s", python, oneLine(wrong.String()))
		}
		return fmt.Errorf("--python %s: %w", python, err)
	case versions["missing"] != "" && f.python == "":
		return nil
	case versions["missing"] != "":
		return fmt.Errorf("--python %s: it has no distributed (%s): install distributed==%s in it", python, oneLine(versions["missing"]), cluster.Head.Versions["distributed"])
	}
	text := berth.VersionsDiffer("your "+python, versions, "the cluster", cluster.Head.Versions)
	if text == "" {
		return nil
	}
	if f.anyVersions {
		fmt.Fprintf(a.stderr, "berth: %s\n", oneLine(text))
		return nil
	}
	return fmt.Errorf("%s: install %s here, or make the cluster from an image that has yours; --python names another Python, --any-versions connects all the same", text, strings.Join(pinned(cluster.Head.Versions), " "))
}

// pinned are the packages to install for versions.
func pinned(versions map[string]string) []string {
	out := []string{"Python " + versions["python"]}
	for _, name := range []string{"dask", "distributed"} {
		if v := versions[name]; v != "" {
			out = append(out, name+"=="+v)
		}
	}
	return out
}
