//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// A proxy that can't be used keeps tasks from starting, says why, and fails
// them when config_grace has passed. None of them runs without it.
func TestProxyThatCannotBeUsed(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*gateway)
		address func(*gateway) string
		words   []string
	}{
		"nobody listens":         {nil, func(g *gateway) string { g.end(); return "socks5://" + g.address }, []string{"can't be reached", "connection refused"}},
		"SOCKS5 that is silent":  {func(g *gateway) { g.mode = "hang" }, nil, []string{"does not answer"}},
		"HTTP that is silent":    {func(g *gateway) { g.mode, g.http = "hang", true }, nil, []string{"does not answer"}},
		"SOCKS5 of nonsense":     {func(g *gateway) { g.mode = "garbage" }, nil, []string{"which is not SOCKS5"}},
		"HTTP of nonsense":       {func(g *gateway) { g.mode, g.http = "garbage", true }, nil, []string{"which is not HTTP"}},
		"it hangs up":            {func(g *gateway) { g.mode = "close" }, nil, []string{"without an answer"}},
		"the other kind":         {func(g *gateway) { g.http = true }, func(g *gateway) string { return g.address }, []string{"does not answer as a proxy with SOCKS5"}},
		"SOCKS5 wants a login":   {func(g *gateway) { g.login = "ada:s3cret" }, nil, []string{"wants a user and password"}},
		"SOCKS5 and a wrong one": {func(g *gateway) { g.login = "ada:s3cret" }, func(g *gateway) string { return "socks5://ada:${env:WRONG}@" + g.address }, []string{"does not accept the user and password"}},
		"HTTP wants a login":     {func(g *gateway) { g.login, g.http = "ada:s3cret", true }, nil, []string{"wants a user and password"}},
		"HTTP and a wrong one":   {func(g *gateway) { g.login, g.http = "ada:s3cret", true }, func(g *gateway) string { return "http://ada:${env:WRONG}@" + g.address }, []string{"does not accept the user and password"}},
		"its name is unknown":    {nil, func(*gateway) string { return "socks5://no-such-proxy.example:1080" }, []string{"no-such-proxy.example", "does not resolve"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "proxy")
			s.env = append(s.env, "WRONG=nonsense-of-a-password")
			g := newGateway(t, tt.change)
			address := "socks5://" + g.address
			switch {
			case tt.address != nil:
				address = tt.address(g)
			case g.http:
				address = "http://" + g.address
			}
			s.behind(address, "grace: {config_grace: 4s}\n")
			s.record()
			r := s.berth("run", busybox, "--", "true")
			task := s.tasks()[0]
			if r.code != berth.ExitNone || task.State != berth.StateFailed || task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseProxyUnreachable {
				t.Fatalf("exit %d, %s, %+v\n%s", r.code, task.State, task.Diagnosis, r.stderr)
			}
			produced(task.Diagnosis.Cause)
			for _, word := range tt.words {
				if !strings.Contains(task.Diagnosis.Summary, word) {
					t.Errorf("%q is not in: %s", word, task.Diagnosis.Summary)
				}
			}
			if task.StartedAt != nil {
				t.Error("its program was started")
			}
			if all := fmt.Sprint(r.stdout, r.stderr, task.Diagnosis); strings.Contains(all, "nonsense-of-a-password") {
				t.Errorf("the password is shown:\n%s", all)
			}
			if r.took > time.Minute {
				t.Errorf("it took %s", r.took)
			}
		})
	}
}

// While a task runs its proxy's loss is shown, and passes when it is back.
func TestProxyLostWhileATaskRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t, "proxy")
	g := newGateway(t, nil)
	to := greeter(t)
	s.behind(g.address, "")
	id := s.detach(busybox, "--", "sh", "-c", `
unset http_proxy HTTP_PROXY
until timeout 5 wget -q -O /dev/null http://`+to+`/before 2>/dev/null; do sleep 0.2; done
echo began
n=0
until [ -e /tmp/lost ]; do timeout 5 wget -q -O /dev/null http://`+to+`/while 2>/dev/null || touch /tmp/lost; done
echo lost
until timeout 5 wget -q -O - http://`+to+`/after 2>/dev/null; do n=$((n + 1)); sleep 0.2; done
echo "back after more than none: $((n > 0))"`)
	waitFor(t, "the task's traffic", time.Minute, func() bool { return g.saw(to) > 3 })
	s.start("task", "wait", id) // somebody who looks after it
	g.end()
	began := time.Now()
	waitFor(t, "the loss is shown", 30*time.Second, func() bool {
		d := s.task(id).Diagnosis
		return d != nil && d.Cause == berth.CauseProxyUnreachable
	})
	t.Logf("shown after %s: %s", time.Since(began).Round(time.Millisecond), s.task(id).Diagnosis.Summary)
	produced(berth.CauseProxyUnreachable)
	if task := s.task(id); task.State != berth.StateRunning || !strings.Contains(task.Diagnosis.Summary, "connection refused") {
		t.Errorf("%s: %+v", task.State, task.Diagnosis)
	}
	g.begin()
	r := s.berth("task", "wait", id)
	task := s.task(id)
	if r.code != 0 || task.State != berth.StateSucceeded {
		t.Fatalf("exit %d, %s: %+v", r.code, task.State, task.Diagnosis)
	}
	if out := s.must("task", "logs", id); out != "began\nlost\nhello after 0\nback after more than none: 1\n" {
		t.Errorf("%q", out)
	}
	events := fmt.Sprint(s.events(id))
	if !strings.Contains(events, string(berth.EventDiagnosed)) || !strings.Contains(events, string(berth.EventCleared)) {
		t.Errorf("events: %s", events)
	}
	if n := task.Usage.Network; n == nil || n.Connections < 5 || n.SentBytes < 100 || n.ReceivedBytes < 100 {
		t.Errorf("usage: %+v", n)
	}
}

// A proxy that falls silent under a task is told from one that is gone.
func TestProxyThatHangsWhileATaskRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t, "proxy")
	g := newGateway(t, nil)
	to := greeter(t)
	s.behind(g.address, "")
	id := s.detach(busybox, "--", "sh", "-c", "unset http_proxy; until [ $((n += 1)) -gt 200 ]; do timeout 3 wget -q -O /dev/null http://"+to+"/x 2>/dev/null; sleep 0.2; done")
	waitFor(t, "its traffic", time.Minute, func() bool { return g.saw(to) > 3 })
	s.start("task", "wait", id) // somebody who looks after it
	g.behave("hang")
	s.explainedAs(id, berth.CauseProxyUnreachable, "does not answer", time.Minute)
	g.behave("")
	waitFor(t, "it is over", time.Minute, func() bool { return s.task(id).Diagnosis == nil })
	s.must("task", "cancel", id)
	s.berth("task", "wait", id)
}

// A login takes the right to create Secrets: infra check says so beforehand, and
// the task is told which profile grants it.
func TestProxyLoginWithoutTheRight(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mayBeRefused = true
	s.write("secrets.yml", "proxy: s3cret\n")
	g := newGateway(t, func(g *gateway) { g.login = "ada:s3cret" })
	s.behind("socks5://ada:${secret:proxy}@"+g.address, "")
	if r := s.berth("infra", "check", "here"); !strings.Contains(r.stdout, "--profile proxy") {
		t.Errorf("infra check:\n%s", r.stdout)
	}
	r := s.berth("run", busybox, "--", "true")
	if r.code != berth.ExitNone || !strings.Contains(r.stderr, "may not create secrets") || !strings.Contains(r.stderr, "--profile proxy") || len(s.pods()) > 0 {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

// A namespace that forbids NET_ADMIN runs no task without its proxy: it is
// refused before anything is stored, and told what the namespace needs.
func TestProxyWhereNetAdminIsForbidden(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"baseline", "restricted"} {
		t.Run(level, func(t *testing.T) {
			s := newSite(t, "proxy")
			g := newGateway(t, nil)
			s.behind(g.address, "")
			s.enforce(level)
			for _, r := range []result{s.berth("run", busybox, "--", "true"), s.berth("infra", "check", "here")} {
				if all := r.stdout + r.stderr; r.code == 0 || !strings.Contains(all, "NET_ADMIN") || !strings.Contains(all, "pod-security.kubernetes.io/enforce=privileged") {
					t.Errorf("exit %d:\n%s", r.code, all)
				}
			}
			if len(s.pods()) > 0 {
				t.Error("a pod was made")
			}
			produced(berth.CausePodSecurityViolated)
		})
	}
}

// The end of the sidecar under a running task opens nothing: it is shown, its
// node starts it again, and what it counted before is not lost.
func TestProxySidecarThatIsKilled(t *testing.T) {
	s := newSite(t, "proxy")
	g := newGateway(t, nil)
	to := greeter(t)
	s.behind(g.address, "")
	s.record()
	seen := sniff(t)
	id := s.detach(busybox, "--", "sh", "-c", "unset http_proxy; end=$(($(date +%s) + 25)); while [ $(date +%s) -lt $end ]; do wget -q -O /dev/null http://"+to+"/x 2>/dev/null; sleep 0.2; done; exit 3")
	address := s.podAddress(id)
	waitFor(t, "its traffic", time.Minute, func() bool { return g.saw(to) > 3 })
	watcher, counted := s.start("task", "wait", id), 0
	for round := 1; round <= 2; round++ { // the second time its node waits before it starts it again
		before := g.saw(to)
		counted = before
		s.killSidecar(id)
		waitFor(t, "the sidecar is back", time.Minute, func() bool { return round == 2 || g.saw(to) > before+2 })
	}
	waitFor(t, "it is shown", 20*time.Second, func() bool {
		d := s.task(id).Diagnosis
		return d != nil && d.Cause == berth.CauseProxyUnreachable
	})
	if code := watcher.wait(t.Context()).code; code != 3 {
		t.Errorf("exit %d", code)
	}
	task := s.task(id)
	if task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseExitedNonZero || !strings.Contains(fmt.Sprint(task.Diagnosis.Evidence), "times more") {
		t.Errorf("%+v", task.Diagnosis)
	}
	// Each time what it counted within the last moment is lost.
	if n := task.Usage.Network; n == nil || n.Connections < int64(counted-3) {
		t.Errorf("the proxy saw %d connections, and the usage is %+v", g.saw(to), n)
	}
	proxy := netip.MustParseAddrPort(g.address)
	for _, p := range seen.of(address) {
		if p.src.Is4() && (p.dst != proxy.Addr() || p.port != proxy.Port()) {
			t.Errorf("it got around: %s", p)
		}
	}
}

// killSidecar ends the process of a pod's sidecar, as its node may for want of memory.
func (s *site) killSidecar(id string) {
	s.t.Helper()
	uid := ""
	for _, pod := range s.pods() {
		if pod.Labels[berth.LabelTask] == id {
			uid = string(pod.UID)
		}
	}
	killed := false
	waitFor(s.t, "the sidecar's process", 30*time.Second, func() bool {
		processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range processes {
			cmdline, _ := os.ReadFile(path)
			cgroup, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup"))
			if strings.Contains(string(cmdline), "proxy\x00serve") && strings.Contains(strings.ReplaceAll(string(cgroup), "_", "-"), uid) {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				killed = syscall.Kill(pid, syscall.SIGKILL) == nil
			}
		}
		return killed
	})
}
