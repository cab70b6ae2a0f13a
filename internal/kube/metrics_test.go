package kube

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// The fixture was recorded from metrics-server 0.9 on Kubernetes v1.34.4.
const podMetricsFile = "testdata/podmetrics-v1.34.4.json"

func TestReadingOfPodMetrics(t *testing.T) {
	for name, tt := range map[string]struct {
		item string
		want berth.Reading
		none bool
	}{
		"the main container counts": {item: `{"timestamp":"2026-01-02T03:04:05Z","window":"15.1s","containers":[{"name":"sidecar","usage":{"cpu":"2","memory":"1Gi"}},{"name":"main","usage":{"cpu":"250m","memory":"64Mi"}}]}`,
			want: berth.Reading{Source: berth.UsageFromCluster, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Cores: 0.25, Window: 15100 * time.Millisecond, MemoryBytes: 64 << 20}},
		"nothing at all used": {item: `{"timestamp":"2026-01-02T03:04:05Z","containers":[{"name":"main","usage":{"cpu":"0","memory":"0"}}]}`,
			want: berth.Reading{Source: berth.UsageFromCluster, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}},
		"no main container": {item: `{"timestamp":"2026-01-02T03:04:05Z","containers":[{"name":"other","usage":{"cpu":"1","memory":"1"}}]}`, none: true},
		"no time":           {item: `{"containers":[{"name":"main","usage":{"cpu":"1","memory":"1"}}]}`, none: true},
	} {
		var p podMetrics
		if err := json.Unmarshal([]byte(tt.item), &p); err != nil {
			t.Fatal(err)
		}
		got, ok := p.reading()
		if diff := cmp.Diff(tt.want, got); diff != "" || ok == tt.none {
			t.Errorf("%s: %v (-want +got):\n%s", name, ok, diff)
		}
	}
}

// meteredServer is an API server in front of which a metrics-server is, or isn't.
type meteredServer struct {
	*apiServer
	lists  atomic.Int64
	status int // of a listing
}

func (s *meteredServer) driver(t *testing.T) *Driver {
	t.Helper()
	data, err := os.ReadFile(podMetricsFile)
	if err != nil {
		t.Fatal(err)
	}
	s.apiServer = newAPIServer(t, "first")
	s.denied = map[string]bool{}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/apis/metrics.k8s.io/") {
			s.serve(w, r)
			return
		}
		s.lists.Add(1)
		if r.URL.Path != "/apis/metrics.k8s.io/v1beta1/namespaces/work/pods" || r.URL.Query().Get("labelSelector") != "berth.run/instance=me" {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("Content-Type", "application/json")
		if s.status != http.StatusOK {
			w.WriteHeader(s.status)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"` + map[int]string{404: "NotFound", 403: "Forbidden", 503: "ServiceUnavailable"}[s.status] + `"}`))
			return
		}
		_, _ = w.Write(data)
	}))
	front.StartTLS()
	t.Cleanup(front.Close)
	s.Server = front
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: first}"), 0o600)
	infra := configInfra(path)
	infra.Namespace = "work"
	client, err := NewClient(infra, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return NewDriver(client, infra, "me")
}

func TestUsageIsOneListing(t *testing.T) {
	s := &meteredServer{status: http.StatusOK}
	d := s.driver(t)
	for range 3 {
		readings, err := d.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]berth.Reading{"berth-dc0q6v9ksdubbpqv3e3g-1": {
			Source: berth.UsageFromCluster, At: time.Date(2026, 11, 21, 13, 58, 49, 0, time.UTC), Cores: 0.312871798, Window: 10007 * time.Millisecond, MemoryBytes: 496 << 10,
		}}
		if diff := cmp.Diff(want, readings); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if n := s.lists.Load(); n != 3 {
		t.Errorf("%d listings for three questions", n)
	}
}

// What is not granted is not tried: it says what to do instead.
func TestUsageThatIsNotToBeHad(t *testing.T) {
	for name, tt := range map[string]struct {
		denied bool
		status int
		want   string
		lists  int64
	}{
		"not granted":              {denied: true, want: "create-kubeconfig -n work --profile metrics", lists: 0},
		"no metrics-server":        {status: http.StatusNotFound, want: "no metrics-server", lists: 1},
		"withdrawn since, by RBAC": {status: http.StatusForbidden, want: "--profile metrics", lists: 1},
	} {
		s := &meteredServer{status: tt.status}
		d := s.driver(t)
		s.denied["list pods.metrics.k8s.io"] = tt.denied
		_, err := d.Usage(t.Context())
		var un *engine.Unmetered
		if !errors.As(err, &un) || !strings.Contains(un.Reason, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.lists.Load(); n != tt.lists {
			t.Errorf("%s: %d listings, want %d", name, n, tt.lists)
		}
	}
	s := &meteredServer{status: http.StatusServiceUnavailable}
	var un *engine.Unmetered
	if _, err := s.driver(t).Usage(t.Context()); err == nil || errors.As(err, &un) {
		t.Errorf("a metrics-server that is down for a moment: %v", err)
	}
}
