//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// behind has the site's tasks send everything through a proxy.
func (s *site) behind(address, more string) {
	s.t.Helper()
	s.infra(s.agentLoaded() + "proxy_address: " + address + "\n" + more)
}

// greeter is an HTTP server of this machine that says hello.
func greeter(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(hostIP(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "hello %s %d\n", strings.TrimPrefix(r.URL.Path, "/"), len(body))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

// What a task connects to is connected to by the proxy, whether its programs
// know of one or not, and its names are resolved through it.
func TestProxyCarriesWhatTasksSend(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*gateway){
		"SOCKS5": nil,
		"HTTP":   func(g *gateway) { g.http = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "proxy")
			g := newGateway(t, change)
			to := greeter(t)
			g.resolve("site.example", "192.0.2.77")
			scheme := "socks5://"
			if g.http {
				scheme = "http://"
			}
			s.behind(scheme+g.address, "")
			r := s.berth("run", busybox, "--", "sh", "-c", `
env | grep -i _proxy | sort
wget -q -O - http://`+to+`/knows
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
wget -q -O - http://`+to+`/knows-not
nslookup -type=a site.example | tail -n 3`)
			if r.code != 0 || !strings.Contains(r.stdout, "hello knows 0\nhello knows-not 0\n") {
				t.Fatalf("exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
			}
			if !strings.Contains(r.stdout, "Name:	site.example\nAddress: 192.0.2.77") {
				t.Errorf("a name was not resolved:\n%s", r.stdout)
			}
			if !strings.Contains(r.stdout, "HTTP_PROXY=http://127.0.0.1:") || !strings.Contains(r.stdout, "no_proxy=localhost,127.0.0.1,::1\n") {
				t.Errorf("the usual variables:\n%s", r.stdout)
			}
			if n := g.saw(to); n != 2 {
				targets, _ := g.seen()
				t.Errorf("the proxy connected to %s %d times, want 2: %q", to, n, targets)
			}
			if task := s.tasks()[0]; task.State != berth.StateSucceeded {
				t.Errorf("the task is %s", task.State)
			}
		})
	}
}

// What the bypass list names is reached without the proxy, by programs that
// know of a proxy too.
func TestProxyBypass(t *testing.T) {
	t.Parallel()
	s := newSite(t, "proxy")
	g := newGateway(t, nil)
	to, around := greeter(t), greeter(t)
	g.resolve("around.example", hostIP(t))
	_, port, _ := net.SplitHostPort(around)
	s.behind(g.address, "proxy_bypass: ["+around+"]\n")
	r := s.berth("run", busybox, "--", "sh", "-c", "wget -q -O - http://"+to+"/by; wget -q -O - http://"+around+"/around; wget -q -O - http://around.example:"+port+"/name; unset http_proxy; wget -q -O - http://"+around+"/unaware")
	if r.code != 0 || r.stdout != "hello by 0\nhello around 0\nhello name 0\nhello unaware 0\n" {
		t.Fatalf("exit %d: %s\n%s", r.code, r.stdout, r.stderr)
	}
	if g.saw(to) != 1 || g.saw(around) != 0 || g.saw("around.example:"+port) != 0 {
		targets, _ := g.seen()
		t.Errorf("the proxy was asked for %q", targets)
	}
}

// resolver is what pods have in their resolv.conf, which knows one name.
func resolver(t *testing.T, name, address string) {
	t.Helper()
	text, err := os.ReadFile(statePath(t, "resolv.conf"))
	if err != nil {
		t.Fatal(err)
	}
	server := strings.Fields(string(text))[1]
	ip := func(verb string) {
		inClusterNetwork(t, func() error {
			return exec.Command("ip", "address", verb, server+"/32", "dev", "lo").Run()
		})
	}
	ip("add")
	t.Cleanup(func() { ip("del") })
	var conn net.PacketConn
	inClusterNetwork(t, func() (err error) {
		conn, err = net.ListenPacket("udp4", net.JoinHostPort(server, "53"))
		return err
	})
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answerTo(buffer[:n], name, address), from)
		}
	}()
}

// A proxy is found by its name, by the pod itself: nothing else may be asked for
// before its rules are there.
func TestProxyByItsName(t *testing.T) {
	s := newSite(t, "proxy")
	g := newGateway(t, nil)
	to := greeter(t)
	resolver(t, "proxy.example", hostIP(t))
	_, port, _ := net.SplitHostPort(g.address)
	s.behind("socks5://proxy.example:"+port, "")
	if out := s.must("run", busybox, "--", "sh", "-c", "unset http_proxy; wget -q -O - http://"+to+"/named"); out != "hello named 0\n" || g.saw(to) != 1 {
		t.Errorf("%q; it was asked %d times", out, g.saw(to))
	}
}

// A login is in a Secret of the pod, and nowhere else. Where infra.yml gives
// none, the proxy is told the task and the attempt.
func TestProxyLogin(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*gateway)
		login  string
		user   func(id string) string
	}{
		"SOCKS5":      {func(g *gateway) { g.login = "ada:s3cret-of-the-proxy" }, "ada:${secret:proxy}@", func(string) string { return "ada" }},
		"HTTP":        {func(g *gateway) { g.login, g.http = "ada:s3cret-of-the-proxy", true }, "ada:${secret:proxy}@", func(string) string { return "ada" }},
		"as the task": {func(g *gateway) { g.anybody = true }, "", func(id string) string { return id + "-1" }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "proxy")
			s.write("secrets.yml", "proxy: s3cret-of-the-proxy\n")
			g := newGateway(t, tt.change)
			to := greeter(t)
			scheme := "socks5://"
			if g.http {
				scheme = "http://"
			}
			s.behind(scheme+tt.login+g.address, "")
			id := s.detach(busybox, "--", "sh", "-c", "env; wget -q -O - http://"+to+"/one; unset http_proxy; wget -q -O - http://"+to+"/two")
			var pods string
			waitFor(t, "the pod", time.Minute, func() bool {
				for _, pod := range s.pods() {
					pods = pod.String()
				}
				return pods != ""
			})
			r := s.berth("task", "wait", id)
			out := s.must("task", "logs", id)
			if r.code != 0 || !strings.Contains(out, "hello one 0\nhello two 0\n") {
				t.Fatalf("exit %d: %s\n%s", r.code, out, r.stderr)
			}
			if _, users := g.seen(); len(users) != 1 || users[0] != tt.user(id) {
				t.Errorf("the proxy knew %q, want %q", users, tt.user(id))
			}
			if all := pods + out + s.must("task", "get", id, "-o", "json") + s.must("task", "events", id, "-o", "json"); strings.Contains(all, "s3cret-of-the-proxy") {
				t.Error("the password is in the pod, the task's environment, the task or an event")
			}
		})
	}
}

// Functions and steps run behind a proxy, and their callbacks go through it.
func TestProxyWithFunctionsAndSteps(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	o := newOffice(t, true, "proxy_address: "+g.address+"\n")
	o.build("arithmetic-bash")
	if got := o.must("call", "arithmetic-bash", "add", "a=3", "b=4"); got != "7\n" {
		t.Errorf("3 + 4 is %q", got)
	}
	to := greeter(t)
	o.write("task.yaml", "version: 1\nimage: "+busybox+"\nsteps: [{run: wget -q -O - http://"+to+"/one}, {run: wget -q -O - http://"+to+"/two}]\n")
	if got := o.must("run", "-f", "task.yaml"); got != "hello one 0\nhello two 0\n" {
		t.Errorf("%q", got)
	}
	if g.saw(o.address) == 0 {
		targets, _ := g.seen()
		t.Errorf("callbacks did not come through the proxy: %q", targets)
	}
	for _, task := range o.tasks() {
		if n := task.Usage.Network; n == nil || n.Connections == 0 || n.SentBytes == 0 {
			t.Errorf("usage of %s: %+v", task.ID, n)
		}
		if task.Usage.CPUSeconds == nil {
			t.Errorf("%s: what its agent counted is missing", task.ID)
		}
	}
}
