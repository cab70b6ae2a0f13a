// Package cluster brings real Kubernetes clusters up on this machine and takes them down: etcd, API
// server, controller manager, scheduler and, unless only a control plane is wanted, containerd, kubelet
// and kube-proxy, all in one network namespace a cluster. State lies in one folder a cluster; sockets,
// the namespace and the address index in a short one below /run, which a reboot empties.
package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/tools/localkube/internal/api"
	"github.com/berth-run/berth/tools/localkube/internal/certificate"
	"github.com/berth-run/berth/tools/localkube/internal/cgroup"
	"github.com/berth-run/berth/tools/localkube/internal/network"
	"github.com/berth-run/berth/tools/localkube/internal/process"
	"github.com/berth-run/berth/tools/localkube/internal/progress"
)

const runFolder = "/run/localkube"

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// Cluster is a cluster by its name; whether it runs is another matter.
type Cluster struct {
	Name  string
	State string // folder of its files
	run   string // short folder of sockets
	plan  network.Plan
}

// New returns the cluster of that name with its state below a folder.
func New(home, name string) (*Cluster, error) {
	if !namePattern.MatchString(name) {
		return nil, fmt.Errorf("the name %q can't be a cluster's: use at most 32 lower-case letters, digits and '-'", name)
	}
	state := filepath.Join(home, name)
	sum := sha256.Sum256([]byte(state))
	c := &Cluster{Name: name, State: state, run: filepath.Join(runFolder, name[:min(len(name), 8)]+"-"+hex.EncodeToString(sum[:4]))}
	c.readPlan()
	return c, nil
}

// readPlan finds the addresses that the cluster has, if any.
func (c *Cluster) readPlan() {
	c.plan.Index = -1
	if content, err := os.ReadFile(c.indexFile()); err == nil {
		if index, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil && index >= 0 && index < network.Size {
			c.plan.Index = index
		}
	}
}

// Names returns the clusters that have state below a folder.
func Names(home string) []string {
	files, _ := filepath.Glob(filepath.Join(home, "*", "pki"))
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names
}

// Removable returns the clusters that have state below a folder, or had when they were brought up, and
// those of any folder that is gone: a checkout that was deleted cannot take its clusters down.
func Removable(home string) []*Cluster {
	states := map[string]bool{}
	for _, name := range Names(home) {
		states[filepath.Join(home, name)] = true
	}
	files, _ := filepath.Glob(filepath.Join(runFolder, "*", "state"))
	for _, file := range files {
		state, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, err = os.Stat(string(state))
		if filepath.Dir(string(state)) == home || errors.Is(err, os.ErrNotExist) {
			states[string(state)] = true
		}
	}
	var clusters []*Cluster
	for _, state := range slices.Sorted(maps.Keys(states)) {
		if c, err := New(filepath.Dir(state), filepath.Base(state)); err == nil {
			clusters = append(clusters, c)
		}
	}
	return clusters
}

func (c *Cluster) indexFile() string         { return filepath.Join(c.run, "index") }
func (c *Cluster) stateFile() string         { return filepath.Join(c.run, "state") }
func (c *Cluster) file(name string) string   { return filepath.Join(c.State, name) }
func (c *Cluster) socket(name string) string { return filepath.Join(c.run, name+".sock") }
func (c *Cluster) pki() certificate.Folder   { return certificate.Folder(c.file("pki")) }
func (c *Cluster) server() string            { return fmt.Sprintf("https://%s:6443", c.plan.Node()) }
func (c *Cluster) link() string              { return "lk" + strconv.Itoa(c.plan.Index) }
func (c *Cluster) group() cgroup.Group {
	return cgroup.Group{Name: "localkube-" + filepath.Base(c.run)}
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.file("kubeconfig") }

// HostAddress is where pods reach listeners of the machine.
func (c *Cluster) HostAddress() string {
	if c.plan.Index < 0 {
		return ""
	}
	return c.plan.Host().String()
}

func (c *Cluster) namespace() network.Namespace {
	return network.Namespace{File: filepath.Join(c.run, "net")}
}

// Processes is where the components' processes and logs are kept.
func (c *Cluster) Processes() process.Folder {
	return process.Folder{State: c.file("processes"), Logs: c.file("logs")}
}

func (c *Cluster) client() (*api.Client, error) {
	return api.New(c.server(), c.pki(), "ca", "admin")
}

// lock keeps two runs from working on one cluster at once; the kernel releases it. The addresses are
// read again: the run that was waited for may have given them or taken them away.
func (c *Cluster) lock(ctx context.Context, p *progress.Printer) (func(), error) {
	path := filepath.Join(filepath.Dir(c.State), "."+c.Name+".lock")
	unlock, err := lockFile(path)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = p.Step("Waited for another run that works on cluster "+c.Name, func() error {
			for errors.Is(err, unix.EWOULDBLOCK) {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(lockPause):
				}
				unlock, err = lockFile(path)
			}
			return err
		})
	}
	c.readPlan()
	return unlock, err
}

// lockPause is how often to look whether another run has ended.
const lockPause = 50 * time.Millisecond

// lockFile takes a lock that the kernel releases with this process; EWOULDBLOCK when another has it.
func lockFile(path string) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

// allocate gives the cluster addresses that no other one on this machine has.
func (c *Cluster) allocate() error {
	unlock, err := lockFile(filepath.Join(runFolder, "lock"))
	for errors.Is(err, unix.EWOULDBLOCK) { // held for a moment only
		time.Sleep(lockPause)
		unlock, err = lockFile(filepath.Join(runFolder, "lock"))
	}
	if err != nil {
		return err
	}
	defer unlock()
	taken := map[int]bool{}
	others, _ := filepath.Glob(filepath.Join(runFolder, "*", "index"))
	for _, other := range others {
		content, err := os.ReadFile(other)
		if index, convErr := strconv.Atoi(strings.TrimSpace(string(content))); err == nil && convErr == nil {
			taken[index] = true
		}
	}
	routes, err := network.Routes()
	if err != nil {
		return err
	}
	if c.plan.Index, err = network.Allocate(taken, routes); err != nil {
		return err
	}
	if err := os.MkdirAll(c.run, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", c.run, err)
	}
	return errors.Join(os.WriteFile(c.stateFile(), []byte(c.State), 0o644), os.WriteFile(c.indexFile(), []byte(strconv.Itoa(c.plan.Index)), 0o644))
}

// Root says what is missing when this is not root.
func Root() error {
	if os.Geteuid() != 0 {
		return errors.New("localkube makes network namespaces, mounts and control groups: run it as root")
	}
	return nil
}
