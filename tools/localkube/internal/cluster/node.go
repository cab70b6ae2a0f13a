package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/image"
	"github.com/berth-run/berth/tools/localkube/internal/mount"
)

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
