package dask

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/compute"
)

var cluster = berth.Cluster{ID: "kit", Spec: berth.ClusterSpec{IdleTimeout: time.Minute, NoClientTimeout: 1500 * time.Millisecond}}

// headOf drives what answers requests.
func headOf(t *testing.T, handler http.HandlerFunc) compute.Head {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	head := Engine{}.Connect(&cluster, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	t.Cleanup(head.Close)
	return head
}

func TestAHeadTellsHowItsClusterStands(t *testing.T) {
	head := headOf(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/kit/berth/state" {
			t.Errorf("asked %s %s", r.Method, r.URL.Path)
		}
		_, _ = io.WriteString(w, `{"versions": {"python": "3.12.1"}, "mark": "7", "clients": 2, "unfinished": 5, "target": 3, "more": 1, "workers": {
			"a": {"status": "running", "executing": 1, "processing": 4, "versions": {"dask": "1"}},
			"b": {"status": "closing_gracefully", "draining": true, "error": "no room"},
			"c": {"status": "closed", "draining": true, "drained": true}, "d": {}}}`)
	})
	want := &compute.State{
		Versions: map[string]string{"python": "3.12.1"}, Mark: "7", Clients: 2, Unfinished: 5, Target: 3,
		Workers: map[string]compute.Worker{
			"a": {Running: true, Executing: 1, Pending: 4, Versions: map[string]string{"dask": "1"}},
			"b": {Running: true, Draining: true, Trouble: "no room"}, "c": {Draining: true, Drained: true}, "d": {},
		},
	}
	got, err := head.State(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestAHeadIsToldWhichWorkersAreTooMany(t *testing.T) {
	head := headOf(t, func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/kit/berth/drain" || string(text) != `{"workers":["a","b"]}` {
			t.Errorf("asked %s %s %s, %v", r.Method, r.URL.Path, text, err)
		}
	})
	if err := head.Drain(t.Context(), []string{"a", "b"}); err != nil {
		t.Error(err)
	}
}

func TestWhyAHeadDoesNotTellIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"it fails": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Traceback", http.StatusInternalServerError)
		}, "answered 500 Internal Server Error: Traceback"},
		"it says much": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("x", 1000), http.StatusNotFound)
		}, "answered 404 Not Found: " + strings.Repeat("x", 200)},
		"it is none":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "what is no state of a cluster"},
		"it breaks off":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"it is no state": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"clients": "two"}`) }, "what is no state of a cluster"},
	} {
		if _, err := headOf(t, c.handler).State(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "http://") || len(err.Error()) > 300 {
			t.Errorf("%s: %v", name, err)
		}
	}
	away := berth.Errorf(berth.CodeForbidden, "pods/portforward is forbidden")
	head := Engine{}.Connect(&cluster, func(context.Context) (net.Conn, error) { return nil, away })
	if _, err := head.State(t.Context()); berth.CodeOf(err) != berth.CodeForbidden || err.Error() != away.Error() {
		t.Errorf("what can't be dialled: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := headOf(t, func(http.ResponseWriter, *http.Request) {}).Drain(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
}

func environment(spec *berth.TaskSpec) map[string]string {
	all := map[string]string{}
	for _, v := range spec.Env {
		all[v.Name] = v.Value
	}
	return all
}

func TestWhatAHeadIsStartedWith(t *testing.T) {
	spec := berth.TaskSpec{Env: []berth.EnvVar{{Name: "MINE", Value: "1"}}}
	Engine{}.Head(&cluster, &spec)
	if want := []string{"python3", "/var/run/berth/cluster/launch.py", "head"}; !cmp.Equal(spec.Args, want) || spec.Entrypoint != nil {
		t.Errorf("it runs %q %q", spec.Entrypoint, spec.Args)
	}
	want := map[string]string{"MINE": "1", "BERTH_CLUSTER_TLS": "/var/run/berth/cluster", "BERTH_CLUSTER_PREFIX": "/kit", "BERTH_IDLE_TIMEOUT": "75", "BERTH_NO_CLIENT_TIMEOUT": "16.5"}
	if diff := cmp.Diff(want, environment(&spec)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	lasting := berth.TaskSpec{}
	Engine{}.Head(&berth.Cluster{ID: "kit"}, &lasting)
	if _, limited := environment(&lasting)["BERTH_IDLE_TIMEOUT"]; limited {
		t.Errorf("one without limits: %v", lasting.Env)
	}
}

func TestWhatAWorkerIsStartedWith(t *testing.T) {
	for name, c := range map[string]struct {
		group berth.ClusterGroup
		want  map[string]string
	}{
		"as little":   {berth.ClusterGroup{}, map[string]string{}},
		"half a CPU":  {berth.ClusterGroup{CPU: "500m"}, map[string]string{"BERTH_WORKER_THREADS": "1"}},
		"whole CPUs":  {berth.ClusterGroup{CPU: "3.9", Memory: "1Gi", GPU: 2}, map[string]string{"BERTH_WORKER_THREADS": "3", "BERTH_WORKER_MEMORY": "1073741824", "BERTH_WORKER_GPU": "2"}},
		"much memory": {berth.ClusterGroup{Memory: "2G"}, map[string]string{"BERTH_WORKER_MEMORY": "2000000000"}},
	} {
		spec := berth.TaskSpec{CPU: c.group.CPU, Memory: c.group.Memory}
		Engine{}.Worker(&cluster, &c.group, "10.0.0.1", &spec)
		c.want["BERTH_CLUSTER_TLS"], c.want["BERTH_CLUSTER_HEAD"] = "/var/run/berth/cluster", "tls://10.0.0.1:8786"
		if diff := cmp.Diff(c.want, environment(&spec)); diff != "" || spec.Args[2] != "worker" {
			t.Errorf("%s: %q (-want +got):\n%s", name, spec.Args, diff)
		}
	}
	spec := berth.TaskSpec{}
	Engine{}.Worker(&cluster, &berth.ClusterGroup{}, "fd00::1", &spec)
	if got := environment(&spec)["BERTH_CLUSTER_HEAD"]; got != "tls://[fd00::1]:8786" {
		t.Errorf("a head with an IPv6 address: %s", got)
	}
}
