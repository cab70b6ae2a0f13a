//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"crypto/tls"
	"crypto/x509"

	"github.com/berth-run/berth"
)

// office is a site with a berth server: its registry, which the cluster's nodes
// trust, and its callbacks, which pods reach.
type office struct {
	*site
	address string   // HOST:PORT, for pods and for us
	flags   []string // of berth server
	server  *exec.Cmd
	log     *lockedBuffer
}

func freePort(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// newOffice starts a server; more are lines for the entry of infra.yml. Without
// callbacks pods have no way to the control plane but the cluster's own.
func newOffice(t *testing.T, callbacks bool, more string) *office {
	t.Helper()
	return officeOf(newSite(t, "functions"), callbacks, more)
}

// officeOf is newOffice for a site that is there.
func officeOf(s *site, callbacks bool, more string) *office {
	t := s.t
	t.Helper()
	host := hostIP(t)
	o := &office{site: s, address: host + ":" + freePort(t, host)}
	entry := "registry: " + o.address + "\n"
	if callbacks {
		entry += "callback_to: " + o.address + "\n"
	}
	o.infra(entry + more)
	o.start()
	t.Cleanup(func() { o.stop(syscall.SIGTERM) })
	o.trust()
	return o
}

func (o *office) start() {
	o.t.Helper()
	o.log = &lockedBuffer{}
	o.server = o.command(nil, append([]string{"server", "--listen", o.address}, o.flags...)...)
	o.server.Stderr = o.log
	if err := o.server.Start(); err != nil {
		o.t.Fatal(err)
	}
	waitFor(o.t, "the server's first line", 15*time.Second, func() bool { return strings.Contains(o.log.String(), "serving https://") })
}

// stop ends the server and waits until it is gone.
func (o *office) stop(s syscall.Signal) {
	_ = o.server.Process.Signal(s)
	_ = o.server.Wait()
	if o.t.Failed() {
		o.t.Logf("the server's log:\n%s", o.log.String())
	}
}

// trust has the cluster's nodes trust the server's certificate, as the nodes of
// a real one would have to.
func (o *office) trust() {
	o.t.Helper()
	dir := filepath.Join(os.Getenv("BERTH_E2E_STATE"), "certs.d", o.address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { os.RemoveAll(dir) })
	text := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %q\n", "https://"+o.address, "https://"+o.address, filepath.Join(o.dir, ".berth", "ca.pem"))
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

// client is an HTTP client that trusts the server.
func (o *office) client() *http.Client {
	o.t.Helper()
	pem, err := os.ReadFile(filepath.Join(o.dir, ".berth", "ca.pem"))
	if err != nil {
		o.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: 10 * time.Second}
}

// base is the root filesystem with bash, Python and Node that packages are
// built upon.
func base(t *testing.T) string {
	t.Helper()
	path := os.Getenv("BERTH_E2E_BASE")
	if path == "" {
		out, err := exec.Command("../../hack/base-image.sh").Output()
		if err != nil {
			t.Fatalf("hack/base-image.sh: %v", err)
		}
		path = strings.TrimSpace(string(out))
	}
	return "rootfs:" + path
}

// build builds a package of examples/, or of a folder.
func (s *site) build(dir string) {
	s.t.Helper()
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = filepath.Abs(filepath.Join("../../examples", dir)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.must("package", "build", dir, "--base", base(s.t))
}

// script builds a package of one bash program, whose functions are given as
// container.yml has them below actions.
func (s *site) script(name, program, actions string) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "package-"+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for file, text := range map[string]string{
		"run.sh":        "#!/bin/bash\n" + program,
		"container.yml": "name: " + name + "\nversion: 1.0.0\nkind: ecu\nfiles: [run.sh]\nentrypoint: {kind: task, exec: run.sh}\nactions:\n" + indent(actions, "  "),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	s.build(dir)
}

func indent(text, by string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(by + line)
	}
	return out.String()
}

// call calls a function and returns the task as JSON tells it.
func (s *site) call(args ...string) (berth.Task, result) {
	s.t.Helper()
	r := s.berth(append([]string{"call", "-o", "json"}, args...)...)
	var task berth.Task
	if r.stdout != "" {
		if err := json.Unmarshal([]byte(r.stdout), &task); err != nil {
			s.t.Fatalf("%v\n%s", err, r.stdout)
		}
	}
	return task, r
}
