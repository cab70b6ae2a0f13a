//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// officeFor is a server for a site, without anything that pods need of it.
func officeFor(s *site, flags ...string) *office {
	s.t.Helper()
	host := hostIP(s.t)
	o := &office{site: s, address: host + ":" + freePort(s.t, host), flags: flags}
	o.start()
	s.t.Cleanup(func() { o.stop(syscall.SIGTERM) })
	return o
}

// remote is a user of the server, on a machine without an infra.yml.
func (o *office) remote() *site {
	o.t.Helper()
	token := strings.TrimSpace(o.must("server", "token", "create", "ada", "--role", "admin"))
	return &site{t: o.t, dir: o.t.TempDir(), namespace: o.namespace, env: []string{"BERTH_SERVER=https://" + o.address, "BERTH_TOKEN=" + token, "BERTH_CA_FILE=" + filepath.Join(o.dir, ".berth", "ca.pem")}}
}

// goneBy waits until a cluster has ended, by a time, with nothing left.
func (s *site) goneBy(id string, at time.Time, why string) {
	s.t.Helper()
	waitFor(s.t, "the cluster is gone", time.Until(at)+30*time.Second, func() bool { return s.cluster(id).State.Terminal() })
	c := s.cluster(id)
	if c.State != berth.ClusterStopped || c.Reason == nil || !strings.Contains(*c.Reason, why) {
		s.t.Errorf("it is %s: %v", c.State, c.Reason)
	}
	if c.FinishedAt == nil || c.FinishedAt.After(at) {
		s.t.Errorf("it was gone at %s, and had to be by %s", c.FinishedAt, at)
	}
	if left := s.leftovers(); len(left) > 0 {
		s.t.Errorf("left: %v", left)
	}
}

// A cluster that nobody uses ends by itself, within 10 s of its limit, and what was
// computed before doesn't end it early.
func TestDaskClusterThatIsIdleEnds(t *testing.T) {
	t.Parallel()
	s := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	c := s.createDask("idle", image, 1, append([]string{"--workers", "1", "--idle-timeout", "15s"}, small...)...)
	conn, tunnel := s.connect("idle")
	s.python(conn.client() + "say(client.submit(lambda: time.sleep(8) or 7).result())")
	ended := time.Now()
	waitFor(t, "the cluster says when it ends", 5*time.Second, func() bool { return s.cluster(c.ID).EndsAt != nil })
	tunnel.kill()
	s.goneBy(c.ID, ended.Add(15*time.Second+10*time.Second), "idle for 15s")
}

// The limit counts on while no control plane runs.
func TestDaskClusterThatIsIdleEndsAfterARestart(t *testing.T) {
	t.Parallel()
	s := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	c := s.createDask("idle", image, 1, append([]string{"--workers", "1", "--idle-timeout", "20s"}, small...)...)
	waitFor(t, "it is idle", 30*time.Second, func() bool { return s.cluster(c.ID).IdleSince != nil })
	since := *s.cluster(c.ID).IdleSince
	s.stop(syscall.SIGKILL)
	s.start()
	if now := s.cluster(c.ID); now.IdleSince == nil || now.IdleSince.Sub(since) > 5*time.Second {
		t.Errorf("it was idle since %s, and is since %v for the next server", since, now.IdleSince)
	}
	s.goneBy(c.ID, s.cluster(c.ID).IdleSince.Add(20*time.Second+10*time.Second), "idle for 20s")
}

// The other limits: nobody connected, and a lifetime.
func TestDaskClusterKeepsItsLimits(t *testing.T) {
	t.Parallel()
	s := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	alone := s.createDask("alone", image, 0, append([]string{"--workers", "0", "--no-client-timeout", "12s"}, small...)...)
	brief := s.createDask("brief", image, 0, append([]string{"--workers", "1", "--max-lifetime", "25s"}, small...)...)
	conn, tunnel := s.connect("alone")
	p := s.startPython(conn.client() + `
say("connected")
time.sleep(20)
say("still there", client.scheduler_info()["type"])
`)
	p.said("still there Scheduler") // longer than it may be alone
	p.end()
	left := time.Now()
	tunnel.kill()
	s.mayEnd(alone.ID, left.Add(12*time.Second+10*time.Second), "no client")
	s.mayEnd(brief.ID, brief.CreatedAt.Add(25*time.Second+10*time.Second), "lifetime")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// mayEnd is goneBy for one of several clusters.
func (s *site) mayEnd(id string, at time.Time, why string) {
	s.t.Helper()
	waitFor(s.t, "the cluster is gone", time.Until(at)+30*time.Second, func() bool { return s.cluster(id).State.Terminal() })
	if c := s.cluster(id); c.State != berth.ClusterStopped || !strings.Contains(*c.Reason, why) || c.FinishedAt.After(at) {
		s.t.Errorf("it is %s at %s (limit %s): %v", c.State, c.FinishedAt, at, *c.Reason)
	}
}

// A head that no Berth looks after ends itself and its workers, and the next Berth
// takes away what is left.
func TestDaskClusterWithoutAControlPlaneEndsItself(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	image, _ := daskImage(t, "debian")
	c := s.createDask("forgotten", image, 1, append([]string{"--workers", "1", "--idle-timeout", "5s"}, small...)...)
	waitFor(t, "its pods have ended by themselves", 3*time.Minute, func() bool {
		for _, pod := range s.pods() {
			if pod.Status.Phase == corev1.PodRunning {
				return false
			}
		}
		return true
	})
	waitFor(t, "the next Berth has cleaned up", time.Minute, func() bool { return s.cluster(c.ID).State.Terminal() })
	if c := s.cluster(c.ID); c.State != berth.ClusterStopped || !strings.Contains(*c.Reason, "ended by itself") {
		t.Errorf("%s: %v", c.State, *c.Reason)
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Of four workers a quota lets two through: the cluster computes with these, and
// says what the others wait for. The way to it may be one without SPDY.
func TestDaskClusterInAQuota(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	s.setQuota(corev1.ResourceList{"requests.memory": resource.MustParse("1200Mi")})
	websockets, _ := s.withoutSPDY()
	image, _ := daskImage(t, "debian")
	c := s.createDask("narrow", image, 2, append([]string{"--workers", "4"}, small...)...)
	waitFor(t, "the cluster says what it waits for", time.Minute, func() bool {
		c = s.cluster("narrow")
		return c.Groups[0].Diagnosis != nil
	})
	if g := c.Groups[0]; g.Ready != 2 || g.Waiting != 2 || g.Diagnosis.Cause != berth.CauseQuotaExceeded || g.Diagnosis.Remedy.Text == "" {
		t.Errorf("%+v", g)
	}
	if out := s.must("cluster", "list"); !strings.Contains(out, "2/4") || !strings.Contains(out, "QuotaExceeded") {
		t.Errorf("the list:\n%s", out)
	}
	conn, _ := s.connect("narrow")
	if out := s.python(conn.client() + "say(sum(client.gather(client.map(lambda i: i, range(50)))))"); strings.TrimSpace(out) != "1225" {
		t.Errorf("it computed %s", out)
	}
	if websockets.Load() == 0 {
		t.Error("no websocket was needed")
	}
	s.setQuota(corev1.ResourceList{"requests.memory": resource.MustParse("3Gi")})
	waitFor(t, "the quota's room is used", time.Minute, func() bool { return s.cluster("narrow").Groups[0].Ready == 4 })
	s.must("cluster", "delete", "narrow")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What can't work says why, and leaves nothing.
func TestDaskBadInput(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	image, _ := daskImage(t, "debian")

	refused := func(what, says string, args ...string) {
		t.Helper()
		if r := s.berth(args...); r.code != berth.ExitNone || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit %d, and not %q:\n%s", what, r.code, says, r.stderr)
		}
	}
	refused("an image without Python", "CommandNotFound", "cluster", "create", "dask", "--software", busybox, "--name", "none", "--workers", "1")
	refused("an image that isn't there", "ImageNeverPull", "cluster", "create", "dask", "--software", "docker.io/library/no-such:1", "--pull", "never", "--workers", "1")
	for _, name := range []string{"none"} {
		if c := s.cluster(name); c.State != berth.ClusterFailed || c.Diagnosis == nil {
			t.Errorf("%s: %s, %+v", name, c.State, c.Diagnosis)
		}
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}

	c := s.createDask("one", image, 0, append([]string{"--workers", "0"}, small...)...)
	refused("a name in use, by another image", "runs "+image, "cluster", "create", "dask", "--name", "one", "--software", busybox)
	if again := s.createDask("one", image, 0, "--workers", "3"); again.ID != c.ID || again.Groups[0].Wanted != 0 {
		t.Errorf("the same name gives %s with %d workers, not %s", again.ID, again.Groups[0].Wanted, c.ID)
	}
	refused("fewer than none", "fewer than 0", "cluster", "scale", "one", "-1")
	refused("too many", "at most 2500", "cluster", "scale", "one", "100000")
	refused("from more to fewer", "the greater number comes last", "cluster", "adapt", "one", "--min", "3", "--max", "2")
	refused("an unknown group", `no group of workers "gpu"`, "cluster", "scale", "one", "2", "--group", "gpu")
	refused("an unknown cluster", "there is no cluster two", "cluster", "connect", "two")

	// Workers from an image without Dask: the cluster says so, and stops trying.
	s.must("cluster", "delete", "one")
	s.must("cluster", "create", "dask", "--name", "mixed", "--software", image, "--pull", "missing", "--group", "wrong=2,image="+busybox, "--group", "right=1,cpu=200m,memory=300Mi", "--wait-for", "1")
	waitFor(t, "it gave up", 2*time.Minute, func() bool { return len(s.cluster("mixed").Warnings) > 0 })
	mixed := s.cluster("mixed")
	if g := mixed.Groups[0]; g.Diagnosis == nil || g.Diagnosis.Cause != berth.CauseCommandNotFound || g.Lost["CommandNotFound"] != 5 {
		t.Errorf("%+v", g)
	}
	if mixed.Groups[1].Ready != 1 || !strings.Contains(mixed.Warnings[0], "wrong") {
		t.Errorf("%+v", mixed)
	}
	s.must("cluster", "delete", "mixed")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A head whose program never answers fails the cluster, with what to look at.
func TestDaskHeadThatNeverAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	image, _ := daskImage(t, "debian")
	// It listens elsewhere than it should.
	r := s.berth("cluster", "create", "dask", "--name", "stuck", "--software", image, "--pull", "never", "--workers", "1", "--env", "BERTH_HTTP_PORT=9999")
	if r.code != berth.ExitNone || !strings.Contains(r.stderr, "StartTimedOut") || !strings.Contains(r.stderr, "berth cluster logs") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A head that is killed ends the cluster, with the cause.
func TestDaskHeadThatIsLost(t *testing.T) {
	t.Parallel()
	s := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	c := s.createDask("headless", image, 1, append([]string{"--workers", "1"}, small...)...)
	for _, pod := range s.pods() {
		if pod.Labels[berth.LabelGroup] == berth.HeadGroup {
			zero := int64(0)
			if err := admin.CoreV1().Pods(s.namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, "the cluster has ended", time.Minute, func() bool { return s.cluster(c.ID).State.Terminal() })
	c = s.cluster(c.ID)
	if c.State != berth.ClusterFailed || c.Diagnosis == nil || c.Diagnosis.Cause != berth.CauseDeletedExternally {
		t.Errorf("%s: %+v", c.State, c.Diagnosis)
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The number of workers follows what the scheduler wants, and comes down again
// without ending what computes.
func TestDaskClusterAdapts(t *testing.T) {
	t.Parallel()
	s := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	c := s.createDask("elastic", image, 0, append([]string{"--workers", "0-3"}, small...)...)
	conn, _ := s.connect("elastic")
	p := s.startPython(conn.client() + `
def work(i):
    time.sleep(1)
    print("ran", i, flush=True)
    return i
futures = client.map(work, range(60))
say("sum", sum(client.gather(futures)))
long = client.submit(lambda: time.sleep(25) or "long", pure=False)
say(long.result())
`)
	waitFor(t, "as many workers as there may be", 2*time.Minute, func() bool { return s.cluster(c.ID).Groups[0].Ready == 3 })
	p.said("sum 1770")
	waitFor(t, "fewer workers, while one computes", time.Minute, func() bool { g := s.cluster(c.ID).Groups[0]; return g.Ready == 1 && g.Draining == 0 })
	if out := p.end(); !strings.Contains(out, "long") {
		t.Errorf("%s", out)
	}
	waitFor(t, "no worker", time.Minute, func() bool { g := s.cluster(c.ID).Groups[0]; return g.Ready == 0 && g.Draining == 0 && g.Wanted == 0 })
	now := s.cluster(c.ID)
	if len(now.Groups[0].Lost) != 0 {
		t.Errorf("lost: %v", now.Groups[0].Lost)
	}
	for i, n := range s.ran(&now) {
		if n != 1 {
			t.Errorf("task %s ran %d times", i, n)
		}
	}
	s.must("cluster", "adapt", "elastic", "--min", "1", "--max", "2")
	waitFor(t, "the least number of workers", time.Minute, func() bool { return s.cluster(c.ID).Groups[0].Ready == 1 })
	s.must("cluster", "delete", "elastic")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A tunnel goes on by itself when the server comes again, and two clients compute
// at once, each with its own results.
func TestDaskClientsThroughAServerThatRestarts(t *testing.T) {
	t.Parallel()
	s := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	s.createDask("shared", image, 1, append([]string{"--workers", "1"}, small...)...)
	remote := s.remote()
	first, _ := remote.connect("shared")
	second, _ := remote.connect("shared")
	program := func(c *connection, n int) string {
		return c.client() + fmt.Sprintf(`
say(sum(client.gather(client.map(lambda i: i + %[1]d, range(20)))))
say("waiting")
while not os.path.exists("restarted"): time.sleep(0.1)
for _ in range(100):
    try:
        say("again", client.submit(lambda i: i * 2, %[1]d, pure=False).result(timeout=30))
        break
    except Exception as e:
        print(repr(e), file=sys.stderr); time.sleep(1)
`, n)
	}
	a, b := remote.startPython(program(&first, 1000)), remote.startPython(program(&second, 2000))
	a.said("20190\nwaiting")
	b.said("40190\nwaiting")
	s.stop(syscall.SIGKILL)
	s.start()
	remote.write("restarted", "")
	a.said("again 2000")
	b.said("again 4000")
	a.end()
	b.end()
	s.must("cluster", "delete", "shared")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A laptop that sleeps takes its tunnel with it, and nothing else: the cluster goes
// on, and the tunnel and the client connect anew when it wakes.
func TestDaskClientWhoseLaptopSleeps(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	network := s.throughProxy()
	image, _ := daskImage(t, "debian")
	c := s.createDask("lid", image, 1, append([]string{"--workers", "1"}, small...)...)
	conn, _ := s.connect("lid")
	p := s.startPython(conn.client() + `
say("first", client.submit(lambda: 1).result())
while client.status == "running": time.sleep(0.1)
say("lost")
for _ in range(200):
    try:
        say("again", client.submit(lambda i: i * 2, 21, pure=False).result(timeout=20))
        break
    except Exception as e:
        print(repr(e), file=sys.stderr); time.sleep(0.5)
`)
	p.said("first 1")
	network.swallow()
	p.said("lost")
	network.restore()
	p.said("again 42")
	p.end()
	if now := s.cluster(c.ID); now.State != berth.ClusterRunning || len(now.Groups[0].Lost) != 0 {
		t.Errorf("%s, lost %v", now.State, now.Groups[0].Lost)
	}
	s.must("cluster", "delete", "lid")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
