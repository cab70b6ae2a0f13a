//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

// namespace is one that control planes were given, with a kubeconfig that may
// do there what tasks need.
type namespace struct{ name, dir, kubeconfig string }

var namespaces struct {
	sync.Mutex
	n int
}

func newNamespace(t *testing.T, profiles ...string) *namespace {
	t.Helper()
	namespaces.Lock()
	namespaces.n++
	n := &namespace{name: fmt.Sprintf("chaos-%d-%d", os.Getpid(), namespaces.n), dir: t.TempDir()}
	namespaces.Unlock()
	n.kubeconfig = filepath.Join(n.dir, "kubeconfig")
	args := []string{"create-kubeconfig", "--namespace", n.name, "-o", n.kubeconfig}
	if len(profiles) > 0 {
		args = append(args, "--profile", strings.Join(profiles, ","))
	}
	cmd := exec.Command(crashBinary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.dir, "KUBECONFIG=" + adminKubeconfig}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("create-kubeconfig: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		zero := int64(0)
		_ = admin.CoreV1().Pods(n.name).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{})
		if err := admin.CoreV1().Namespaces().Delete(ctx, n.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Logf("deleting namespace %s: %v", n.name, err)
		}
	})
	eventually(t, "the namespace's default service account", 30*time.Second, func() bool {
		_, err := admin.CoreV1().ServiceAccounts(n.name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	return n
}

// pods are those that exist, of one instance or, for an empty one, of all.
func (n *namespace) pods(instance string) ([]corev1.Pod, error) {
	options := metav1.ListOptions{}
	if instance != "" {
		options.LabelSelector = berth.LabelInstance + "=" + instance
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := admin.CoreV1().Pods(n.name).List(ctx, options)
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// plane is a control plane: a data directory with the server that serves it,
// which is started again whenever it ended.
type plane struct {
	t         *testing.T
	namespace *namespace
	dir, data string
	network   *proxy
	address   string
	env       []string // of all its processes
	service   berth.Service

	mu      sync.Mutex
	process *exec.Cmd
	next    []string // BERTH_CRASH of the processes that are started next
	stopped bool
	killed  int // processes that ended by SIGKILL
	changed chan struct{}
	output  tail
}

// newPlane makes a control plane on a namespace; data is its data directory.
func newPlane(t *testing.T, n *namespace, data string, more string) *plane {
	t.Helper()
	p := &plane{t: t, namespace: n, dir: t.TempDir(), data: data, changed: make(chan struct{})}
	if data == "" {
		p.data = filepath.Join(p.dir, "data")
	}
	config, err := clientcmd.LoadFromFile(n.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cluster := config.Clusters[config.Contexts[config.CurrentContext].Cluster]
	server, err := url.Parse(cluster.Server)
	if err != nil {
		t.Fatal(err)
	}
	p.network = newProxy(t, server.Host)
	cluster.Server, cluster.TLSServerName = "https://"+p.network.address, server.Hostname()
	if err := clientcmd.WriteToFile(*config, filepath.Join(p.dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	infra := "infrastructures:\n  here:\n    kind: kube\n    namespace: " + n.name + "\n    credentials: {mechanism: config, path: kubeconfig}\n" + more
	if err := os.WriteFile(filepath.Join(p.dir, "infra.yml"), []byte(infra), 0o600); err != nil {
		t.Fatal(err)
	}
	p.address = freePort(t)
	return p
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// command is a berth command line on the plane's data directory.
func (p *plane) command(args ...string) *exec.Cmd {
	cmd := exec.Command(crashBinary, args...)
	cmd.Dir = p.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "BERTH_DATA=" + p.data}, p.env...)
	return cmd
}

// run runs a command line to its end.
func (p *plane) run(args ...string) (stdout string, code int) {
	p.t.Helper()
	cmd := p.command(args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Logf("berth %s: exit %d\n%s", strings.Join(args, " "), code, stderr.String())
	}
	return out.String(), code
}

// start has the server run from now on, and dials it. The first processes die
// where they are told to.
func (p *plane) start(crashes ...string) {
	p.t.Helper()
	p.next = crashes
	var keeping sync.WaitGroup
	keeping.Go(p.keep)
	p.t.Cleanup(func() {
		p.mu.Lock()
		p.stopped = true
		if p.process != nil {
			_ = p.process.Process.Kill()
		}
		p.mu.Unlock()
		keeping.Wait()
		if p.t.Failed() {
			p.t.Logf("the last that the servers of %s said:\n%s", p.namespace.name, p.output.String())
		}
	})
	// Made by a process of its own, as a person would: through the host's socket.
	var token string
	eventually(p.t, "a token", 60*time.Second, func() bool {
		if _, err := os.Stat(filepath.Join(p.data, "ca.pem")); err != nil {
			return false
		}
		stdout, code := p.run("server", "token", "create", "chaos", "--role", "admin")
		token = strings.TrimSpace(stdout)
		return code == 0
	})
	service, err := client.Dial("https://"+p.address, token, client.WithCAFile(filepath.Join(p.data, "ca.pem")))
	if err != nil {
		p.t.Fatal(err)
	}
	p.service = service
	p.t.Cleanup(func() { service.Close() })
}

// keep runs one server after the other.
func (p *plane) keep() {
	for {
		p.mu.Lock()
		if p.stopped {
			p.mu.Unlock()
			return
		}
		cmd := p.command("server", "--listen", p.address)
		if len(p.next) > 0 {
			cmd.Env = append(cmd.Env, "BERTH_CRASH="+p.next[0])
			p.next = p.next[1:]
		}
		cmd.Stderr = &p.output
		if err := cmd.Start(); err != nil {
			p.mu.Unlock()
			p.t.Error(err)
			return
		}
		p.process = cmd
		p.mu.Unlock()
		_ = cmd.Wait()
		p.mu.Lock()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		byKill := status.Signaled() && status.Signal() == syscall.SIGKILL
		if byKill && !p.stopped {
			p.killed++
		} else if !p.stopped {
			p.output.WriteString(fmt.Sprintf("-- a server ended: %s\n", cmd.ProcessState))
		}
		p.process = nil
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if !byKill {
			<-time.After(200 * time.Millisecond) // one that can't start, as its disk is full
		}
	}
}

// kill ends the server that runs; the ones after it die where they are told to.
func (p *plane) kill(crashes ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = crashes
	if p.process != nil {
		_ = p.process.Process.Kill()
	}
}

func (p *plane) kills() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// dies waits until a server was killed so many times.
func (p *plane) dies(times int, limit time.Duration) bool {
	timeout := time.After(limit)
	for {
		p.mu.Lock()
		killed, changed := p.killed, p.changed
		p.mu.Unlock()
		if killed >= times {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// instance is the id that labels what the plane creates.
func (p *plane) instance() string {
	info, err := p.service.Info(p.t.Context())
	if err != nil {
		p.t.Error(err)
	}
	return info.Instance
}

// pick is any of what there is.
func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

const tailSize = 64 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (b *tail) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, data...)
	if len(b.text) > 2*tailSize {
		b.text = append([]byte{}, b.text[len(b.text)-tailSize:]...)
	}
	return len(data), nil
}

func (b *tail) WriteString(text string) { _, _ = b.Write([]byte(text)) }

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
