// Package debian installs Debian packages that are missing.
package debian

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth/tools/localkube/internal/progress"
)

// Package is a Debian package and a file by which it is known to be there.
type Package struct {
	Name string
	File string // absolute; a pattern
	Why  string
}

// Packages that a cluster's node needs.
var Node = []Package{
	{"containerd", "/usr/bin/containerd-shim-runc-v2", "has the shim that holds a container"},
	{"runc", "/usr/sbin/runc", "starts a container's process"},
	{"containernetworking-plugins", "/usr/lib/cni/ptp", "gives pods their network"},
	{"nftables", "/usr/sbin/nft", "loads kube-proxy's rules"},
	{"busybox-static", "/bin/busybox", "is what the test image is made of"},
}

// Control is what a control plane alone needs.
var Control = []Package{
	{"iproute2", "/*/ip", "sets up the cluster's network"},
}

// Ensure installs what is missing, and says so before.
func Ensure(ctx context.Context, p *progress.Printer, packages []Package) error {
	var names []string
	for _, pack := range packages {
		if found, _ := filepath.Glob(pack.File); len(found) > 0 {
			continue
		}
		if found, _ := filepath.Glob("/usr" + pack.File); len(found) > 0 {
			continue
		}
		p.Line(" • The Debian package %s is missing and will be installed: it %s", pack.Name, pack.Why)
		names = append(names, pack.Name)
	}
	if len(names) == 0 {
		return nil
	}
	return p.Step("Installed "+strings.Join(names, ", "), func() error { return install(ctx, names) })
}

// install keeps services of the packages from being started: a cluster runs its own containerd.
func install(ctx context.Context, names []string) error {
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); os.IsNotExist(err) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err == nil {
			defer os.Remove(policy)
		}
	}
	arguments := append([]string{"install", "-y", "--no-install-recommends"}, names...)
	if err := apt(ctx, arguments...); err == nil {
		return nil
	}
	// The lists may be old or missing.
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	return apt(ctx, arguments...)
}

func apt(ctx context.Context, arguments ...string) error {
	command := exec.CommandContext(ctx, "apt-get", arguments...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w: Debian's packages must be reachable, or install them by hand\n%s", strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return nil
}
