// Package build makes the components' programs from their Go modules, once: results are kept in the
// user's cache folder under a hash of everything that goes in, so a second checkout of the same source
// builds nothing. It runs the go command and writes only to that cache.
package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/tools/localkube/internal/progress"
)

// Program is one program and how it is linked.
type Program struct {
	// Name is the program's name and that of its module's folder.
	Name string
	// Package is the package to build, "." where the module has a main package of its own.
	Package string
	// LinkerVariables are the -X settings.
	LinkerVariables []string
	// Duration says how long a first build takes, for the line that announces it.
	Duration string
}

const (
	kubernetesVersion = "v1.34.4"
	containerdVersion = "v1.6.36"
)

// The programs that clusters are made of.
var (
	Kubernetes = Program{
		Name: "kubernetes", Package: ".", Duration: "about 5 minutes",
		LinkerVariables: []string{
			"k8s.io/component-base/version.gitVersion=" + kubernetesVersion,
			"k8s.io/component-base/version.gitMajor=1",
			"k8s.io/component-base/version.gitMinor=34",
		},
	}
	Containerd = Program{
		Name: "containerd", Package: ".", Duration: "about 1 minute",
		LinkerVariables: []string{"github.com/containerd/containerd/version.Version=" + containerdVersion},
	}
	Pause         = Program{Name: "pause", Package: ".", Duration: "seconds"}
	CoreDNS       = Program{Name: "coredns", Package: ".", Duration: "about 2 minutes"}
	MetricsServer = Program{Name: "metrics-server", Package: "sigs.k8s.io/metrics-server/cmd/metrics-server", Duration: "about 2 minutes"}
	Kwok          = Program{Name: "kwok", Package: "sigs.k8s.io/kwok/cmd/kwok", Duration: "about 2 minutes"}
)

// lockPause is how often to look whether another run's build has ended.
const lockPause = 100 * time.Millisecond

// Builder builds programs from one source tree.
type Builder struct {
	// Components is the folder with the modules.
	Components string
	// Cache is the folder with the results.
	Cache string
	// Progress is told of builds, not of hits.
	Progress *progress.Printer
}

// CacheFolder is where results are kept: below XDG_CACHE_HOME or ~/.cache.
func CacheFolder() (string, error) {
	folder, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w: set XDG_CACHE_HOME", err)
	}
	return filepath.Join(folder, "berth-localkube"), nil
}

// Binary returns the path of the program, built first if the cache does not have it. Two builds of the
// same program, in one process or several, wait for each other.
func (b *Builder) Binary(ctx context.Context, p Program) (string, error) {
	key, err := b.key(p)
	if err != nil {
		return "", err
	}
	target := filepath.Join(b.Cache, p.Name+"-"+key)
	if executable(target) {
		return target, nil
	}
	unlock, err := b.lock(ctx, p)
	if err != nil {
		return "", err
	}
	defer unlock()
	if executable(target) {
		return target, nil
	}
	b.Progress.Line(" • Building %s from Go modules; without a warm build cache that takes %s", p.Name, p.Duration)
	err = b.Progress.Step("Built "+p.Name, func() error {
		return b.build(ctx, p, target)
	})
	return target, err
}

func (b *Builder) build(ctx context.Context, p Program, target string) error {
	unfinished := fmt.Sprintf("%s.%d", target, os.Getpid())
	defer os.Remove(unfinished)
	flags := []string{"-s", "-w"}
	for _, variable := range p.LinkerVariables {
		flags = append(flags, "-X", variable)
	}
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", strings.Join(flags, " "), "-o", unfinished, p.Package)
	command.Dir = filepath.Join(b.Components, p.Name)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	// The compilers get the signal too when go is interrupted, so nothing goes on in the background.
	command.SysProcAttr = processGroup()
	command.Cancel = func() error { return unix.Kill(-command.Process.Pid, unix.SIGTERM) }
	output, err := command.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("build %s: %w", p.Name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("build %s in %s: %w: the module proxy must be reachable for a first build\n%s", p.Name, command.Dir, err, bytes.TrimSpace(output))
	}
	if err := os.Rename(unfinished, target); err != nil {
		return fmt.Errorf("keep the built %s: %w", p.Name, err)
	}
	return nil
}

// lock is one file a program: builds of different programs may run side by side.
func (b *Builder) lock(ctx context.Context, p Program) (func(), error) {
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the build cache: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(b.Cache, p.Name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the build of %s: %w", p.Name, err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = b.Progress.Step("Waited for another run's build of "+p.Name, func() error { return wait(ctx, file) })
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock the build of %s: %w", p.Name, err)
	}
	return func() { file.Close() }, nil
}

// wait takes the lock as soon as it is free, or gives up with the context. A blocking call could not.
func wait(ctx context.Context, file *os.File) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

func (b *Builder) key(p Program) (string, error) {
	folder := filepath.Join(b.Components, p.Name)
	command := exec.Command("go", "env", "GOVERSION")
	command.Dir = folder
	command.Env = append(os.Environ(), "GOWORK=off")
	version, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its version in %s: %w: install Go and put it on PATH", folder, err)
	}
	return Key(os.DirFS(folder), p, strings.TrimSpace(string(version)), runtime.GOARCH)
}

// Key hashes what a program is made from: its module's files, the toolchain, the architecture and the
// linker's settings. Test files do not count.
func Key(module fs.FS, p Program, goVersion, architecture string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s\n%q\n", goVersion, architecture, p.Package, p.LinkerVariables)
	err := fs.WalkDir(module, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := module.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		content := sha256.New()
		if _, err := io.Copy(content, file); err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %x\n", path, content.Sum(nil))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hash the source of %s: %w", p.Name, err)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o100 != 0
}
