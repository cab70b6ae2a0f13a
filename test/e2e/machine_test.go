//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// statePath is a file in the folder of the cluster's state: audit.log,
// certs.d, host-ip.
func statePath(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("BERTH_E2E_STATE")
	if dir == "" {
		t.Fatal("BERTH_E2E_STATE is not set: run the tests with make test-e2e")
	}
	return filepath.Join(dir, name)
}

// hostIP is this machine's address as the cluster's node sees it.
func hostIP(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(statePath(t, "host-ip"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// registry serves images to the node over plain HTTP, and returns its HOST:PORT.
func registry(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(hostIP(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(listener) //nolint:errcheck // it ends when it is closed
	t.Cleanup(func() { server.Close() })
	return plainHTTP(t, listener.Addr().String())
}

// answer is a registry that gives one answer to everything.
func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// plainHTTP tells the node's containerd that a registry speaks no TLS.
func plainHTTP(t *testing.T, address string) string {
	t.Helper()
	dir := filepath.Join(statePath(t, "certs.d"), address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", address)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return address
}

// closedPort is an address at an IP where nothing listens.
func closedPort(t *testing.T, ip string) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// proxy is the network between Berth and the API server: it can be cut, or
// swallow what it is sent.
type proxy struct {
	address string

	mu     sync.Mutex
	target string
	down   bool
	silent bool
	conns  map[net.Conn]bool
}

// newProxy begins to pass on what it is sent to the server of a kubeconfig.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { listener.Close(); p.cut() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(conn)
		}
	}()
	return p
}

func (p *proxy) pass(conn net.Conn) {
	defer conn.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.down || p.target != target {
		p.mu.Unlock()
		return
	}
	p.conns[conn] = true
	p.mu.Unlock()
	go func() { p.copy(server, conn); server.Close() }()
	p.copy(conn, server)
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
}

func (p *proxy) copy(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		silent := p.silent
		p.mu.Unlock()
		if !silent {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// redirect has another server answer from now on, and returns the one before.
func (p *proxy) redirect(target string) (before string) {
	p.mu.Lock()
	before, p.target = p.target, target
	p.mu.Unlock()
	p.drop()
	return before
}

// swallow lets nothing through from now on, and tells nobody.
func (p *proxy) swallow() {
	p.mu.Lock()
	p.silent = true
	p.mu.Unlock()
}

// drop ends all connections; new ones are passed on.
func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
	clear(p.conns)
}

// cut ends all connections and lets no new ones through.
func (p *proxy) cut() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.drop()
}

// restore passes on new connections; those that missed something end.
func (p *proxy) restore() {
	p.drop()
	p.mu.Lock()
	p.down, p.silent = false, false
	p.mu.Unlock()
}

// editKubeconfig changes the site's kubeconfig, and gives its only cluster and
// user to do so.
func (s *site) editKubeconfig(edit func(cluster *api.Cluster, user *api.AuthInfo)) {
	s.t.Helper()
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	context := config.Contexts[config.CurrentContext]
	edit(config.Clusters[context.Cluster], config.AuthInfos[context.AuthInfo])
	if err := clientcmd.WriteToFile(*config, s.kubeconfig); err != nil {
		s.t.Fatal(err)
	}
}

// throughProxy puts a proxy between the site and its API server.
func (s *site) throughProxy() *proxy {
	s.t.Helper()
	var p *proxy
	s.editKubeconfig(func(cluster *api.Cluster, _ *api.AuthInfo) {
		server, err := url.Parse(cluster.Server)
		if err != nil {
			s.t.Fatal(err)
		}
		p = newProxy(s.t, server.Host)
		cluster.Server, cluster.TLSServerName = "https://"+p.address, server.Hostname()
	})
	return p
}

// start begins a berth command that ends with the test at the latest.
func (s *site) start(args ...string) *running {
	s.t.Helper()
	r := &running{t: s.t, done: make(chan struct{})}
	cmd := s.command(nil, args...)
	cmd.Stdout, cmd.Stderr = &r.stdout, &r.stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	r.kill = func() { _ = cmd.Process.Kill() }
	go func() {
		_ = cmd.Wait()
		r.code = cmd.ProcessState.ExitCode()
		close(r.done)
	}()
	s.t.Cleanup(func() { r.kill(); <-r.done })
	return r
}

// running is a berth command that was started.
type running struct {
	t              *testing.T
	stdout, stderr lockedBuffer
	kill           func()
	done           chan struct{}
	code           int
}

// wait gives what a command ended with.
func (r *running) wait(ctx context.Context) result {
	r.t.Helper()
	select {
	case <-r.done:
	case <-ctx.Done():
		r.kill()
		r.t.Fatalf("it did not end\nstdout: %s\nstderr: %s", r.stdout.String(), r.stderr.String())
	}
	return result{code: r.code, stdout: r.stdout.String(), stderr: r.stderr.String()}
}
