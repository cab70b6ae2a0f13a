//go:build e2e

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/childtest"
	"github.com/berth-run/berth/internal/docker"
)

// dockerd is a Docker Engine of the tests' own, without a network for its
// containers. It is ended by the process that began it.
type dockerd struct {
	dir  string
	host string // unix://...
	api  *client.Client

	more   []string // arguments
	cmd    *exec.Cmd
	exited <-chan struct{}
}

// socket is the path of the socket.
func (d *dockerd) socket() string { return strings.TrimPrefix(d.host, "unix://") }

// startEngine starts a dockerd in a new directory, with more arguments, and
// waits until it answers.
func startEngine(more ...string) (*dockerd, error) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, fmt.Errorf("these tests need dockerd (apt-get install docker.io): %w", err)
	}
	dir, err := os.MkdirTemp("", "dk") // short: the path of a socket is
	if err != nil {
		return nil, err
	}
	d := &dockerd{dir: dir, more: more, host: "unix://" + filepath.Join(dir, "docker.sock")}
	if d.api, err = client.New(client.WithHost(d.host)); err != nil {
		return nil, err
	}
	if err := d.start(); err != nil {
		d.remove()
		return nil, err
	}
	return d, nil
}

// start starts dockerd on what is in its directory.
func (d *dockerd) start() error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command("dockerd", append([]string{
		"--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"),
		"-H", d.host, "--containerd-namespace", filepath.Base(d.dir), "--containerd-plugins-namespace", filepath.Base(d.dir) + "-plugins",
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--shutdown-timeout=3",
	}, d.more...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if d.exited, err = childtest.Start(d.cmd, syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if _, err = d.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err == nil {
			return nil
		}
		select {
		case <-d.exited:
			return errors.New("dockerd ended:\n" + d.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("dockerd does not answer: %w\n%s", err, d.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *dockerd) lastWords() string {
	data, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(data[max(0, len(data)-4000):])
}

// stop ends dockerd with a signal and waits until it is gone.
func (d *dockerd) stop(signal syscall.Signal) {
	_ = d.cmd.Process.Signal(signal)
	select {
	case <-d.exited:
	case <-time.After(time.Minute):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

// end removes all containers, ends dockerd and takes its directory away. The
// error names what is left of it.
func (d *dockerd) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := d.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err == nil {
		for _, c := range list.Items {
			_, _ = d.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		}
	}
	d.stop(syscall.SIGTERM)
	return d.remove()
}

func (d *dockerd) remove() error {
	var left []string
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], d.dir+"/") {
			// The one of its data directory on itself it leaves where that was busy when it ended.
			if fields[4] != filepath.Join(d.dir, "data") {
				left = append(left, "mount "+fields[4])
			}
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range processes {
		if line, _ := os.ReadFile(file); bytes.Contains(line, []byte(d.dir+"/")) {
			left = append(left, "process "+filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		left = append(left, err.Error())
	}
	if len(left) > 0 {
		return errors.New("of dockerd there is left: " + strings.Join(left, ", "))
	}
	return nil
}

// config is an entry of infra.yml for it, by the address of a link to it.
func (d *dockerd) config(address string) berth.InfrastructureConfig {
	return berth.InfrastructureConfig{Name: "here", Kind: berth.KindDocker, Address: address, Limits: berth.DefaultLimits, Grace: berth.DefaultGrace}
}

// driver returns a driver of an instance, by that address.
func (d *dockerd) driver(t *testing.T, address, instance string) *docker.Driver {
	t.Helper()
	c, err := docker.NewClient(d.config(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return docker.NewDriver(c, d.config(address), instance)
}

// importBusybox makes the image of Debian's static busybox, under the name
// that the tests on Kubernetes have it by.
func (d *dockerd) importBusybox(ctx context.Context) error {
	content, err := busyboxTree(nil)
	if err != nil {
		return err
	}
	return d.importImage(ctx, busybox, content, `CMD ["sh"]`, `ENV PATH=/bin`)
}

// importImage makes an image of a tar archive.
func (d *dockerd) importImage(ctx context.Context, name string, content io.Reader, changes ...string) error {
	result, err := d.api.ImageImport(ctx, client.ImageImportSource{Source: content, SourceName: "-"}, name, client.ImageImportOptions{Changes: changes})
	if err != nil {
		return err
	}
	defer result.Close()
	_, err = io.Copy(io.Discard, result)
	return err
}

// busyboxTree is a root directory with busybox in it, and further files.
func busyboxTree(more map[string]string) (io.Reader, error) {
	const path = "/bin/busybox"
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("these tests need a static busybox (apt-get install busybox-static): %w", err)
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err == nil {
			err = w.WriteHeader(&h)
		}
		if err == nil {
			_, err = w.Write(data)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, nil)
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	for name, text := range more {
		add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, []byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	return &out, err
}

// ownEngine is an Engine that one test has for itself.
func ownEngine(t *testing.T, more ...string) *dockerd {
	t.Helper()
	d, err := startEngine(more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.end(); err != nil {
			t.Error(err)
		}
	})
	if err := d.importBusybox(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}
