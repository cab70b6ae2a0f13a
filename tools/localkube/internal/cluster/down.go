package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/tools/localkube/internal/mount"
	"github.com/berth-run/berth/tools/localkube/internal/network"
	"github.com/berth-run/berth/tools/localkube/internal/progress"
)

// order in which components are ended: what starts things again first, the API server before etcd.
var order = []string{"kubelet", "kube-scheduler", "kube-controller-manager", "kube-proxy", "kwok", "pod-logs", "coredns", "metrics-server", "containerd", "kube-apiserver", "etcd"}

// Down ends the cluster and leaves nothing of it: no process, mount, interface, control group or file.
func (c *Cluster) Down(ctx context.Context, p *progress.Printer) error {
	unlock, err := c.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	if !c.leftovers() {
		p.Line("Cluster %s is not there", c.Name)
		return nil
	}
	return p.Step("Cluster "+c.Name+" is down", func() error { return c.remove(ctx) })
}

// remove ends everything and deletes the state.
func (c *Cluster) remove(ctx context.Context) error {
	if err := c.stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(c.State); err != nil {
		return fmt.Errorf("remove the state of %s: %w", c.Name, err)
	}
	return nil
}

// stop ends everything; files, logs among them, stay.
func (c *Cluster) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var failed error
	outside := c.outside()
	processes := c.Processes().All()
	for _, name := range order {
		for _, p := range processes {
			if p.Name != name {
				continue
			}
			if name == "containerd" { // its pods first, while nothing makes new ones
				failed = errors.Join(failed, c.group().Remove(ctx), c.endShims())
			}
			failed = errors.Join(failed, p.Stop(ctx, 3*time.Second))
		}
	}
	// What a killed run left has no process files.
	failed = errors.Join(failed, c.endNamespace(), c.endShims(), c.group().Remove(ctx))
	failed = errors.Join(failed, mount.Unmount(c.run), mount.Unmount(c.file("containerd")), mount.Unmount(c.file("kubelet")))
	if c.plan.Index >= 0 {
		failed = errors.Join(failed, network.Remove(c.link()))
	}
	c.plan.Index = -1
	// A kubeconfig for addresses that are no longer the machine's would send requests to the world.
	outside = append(outside, c.Kubeconfig())
	for _, path := range outside {
		_ = os.Remove(path) // the shim may have done it
	}
	return errors.Join(failed, os.RemoveAll(c.run))
}

// outside returns this cluster's files in places that its components share with those of others and
// can't be told not to use: the kubelet's links to logs, containerd's sockets of shims, results of CNI.
func (c *Cluster) outside() []string {
	const results = "/var/lib/cni/results/"
	paths, _ := filepath.Glob(results + c.group().Name + "-*")
	for _, result := range paths {
		// That of the loopback device has only the sandbox in its name.
		_, sandbox, _ := strings.Cut(filepath.Base(result), c.group().Name+"-")
		paths = append(paths, results+"cni-loopback-"+strings.TrimSuffix(sandbox, "-eth0")+"-lo")
	}
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, c.podLogs()+"/") {
			paths = append(paths, link)
		}
	}
	addresses, _ := filepath.Glob(filepath.Join(c.run, "containerd/io.containerd.runtime.v2.task/k8s.io/*/address"))
	for _, file := range addresses {
		address, err := os.ReadFile(file)
		if socket, found := strings.CutPrefix(strings.TrimSpace(string(address)), "unix://"); err == nil && found {
			paths = append(paths, socket)
		}
	}
	return paths
}

// endShims ends containerd's shims, which outlive it, known by this cluster's socket in their arguments.
func (c *Cluster) endShims() error {
	socket := []byte(c.socket("containerd") + "\x00")
	return endAll(func(pid int) bool {
		line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		return err == nil && bytes.Contains(line, []byte("containerd-shim")) && bytes.Contains(line, socket)
	})
}

// endNamespace ends every process in the cluster's network namespace.
func (c *Cluster) endNamespace() error {
	inode := c.namespace().Inode()
	if inode == 0 {
		return nil
	}
	return endAll(func(pid int) bool {
		var stat unix.Stat_t
		return unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"), &stat) == nil && stat.Ino == inode
	})
}

// endAll kills the processes that are meant, and waits until they are gone. Each is held by a descriptor
// while it is judged: should it end meanwhile, a later process with its pid is not hit.
func endAll(meant func(pid int) bool) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := 0
		folders, _ := filepath.Glob("/proc/[0-9]*")
		for _, folder := range folders {
			pid, err := strconv.Atoi(filepath.Base(folder))
			if err != nil || pid == os.Getpid() {
				continue
			}
			held, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if meant(pid) && !zombie(folder) {
				left++
				_ = unix.PidfdSendSignal(held, unix.SIGKILL, nil, 0)
			}
			unix.Close(held)
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes don't end", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func zombie(folder string) bool {
	content, err := os.ReadFile(filepath.Join(folder, "stat"))
	i := bytes.LastIndexByte(content, ')')
	return err != nil || i+2 >= len(content) || content[i+2] == 'Z'
}
