//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// How fast tunnels are, compared with a client that connects to the scheduler's pod
// directly, which on this machine it can. All speak the same TLS; each round
// measures all, in turn.
func TestDaskTunnelMeasured(t *testing.T) {
	if os.Getenv("BERTH_E2E_MEASURE") == "" {
		t.Skip("it measures: BERTH_E2E_MEASURE=1 runs it")
	}
	for way, make := range map[string]func() *site{
		"through the API server":              func() *site { return newSite(t, "clusters") },
		"by a callback":                       func() *site { return officeOf(newSite(t, "clusters"), true, "").site },
		"by a callback, from another machine": func() *site { return officeOf(newSite(t, "clusters"), true, "").remote() },
	} {
		t.Run(way, func(t *testing.T) { measureTunnel(t, make(), way) })
	}
}

func measureTunnel(t *testing.T, s *site, way string) {
	image, _ := daskImage(t, "debian")
	c := s.createDask("measured", image, 0, "--workers", "0", "--head-memory", "3Gi")
	address := ""
	for _, pod := range s.pods() {
		address = pod.Status.PodIP
	}
	conn, _ := s.connect("measured")
	packages, err := filepath.Abs("../../python")
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "BERTH_BINARY="+berthBinary)
	fmt.Print(s.python(conn.client() + fmt.Sprintf(`
from statistics import median
sys.path.insert(0, %q)
import berth
cluster = berth.Cluster.connect("measured")
ways = {"direct": Client(%q, security=client.security, set_as_default=False), "berth cluster connect": client, "berth.Cluster": cluster.get_client(set_as_default=False)}
size = 256 << 20
data = os.urandom(size)
rates = {name: {"sent": [], "received": []} for name in ways}
for round in range(11):
    for name, c in ways.items():
        began = time.time()
        assert c.run_on_scheduler(len, data) == size
        sent = time.time()
        assert len(c.run_on_scheduler(bytes, size)) == size
        received = time.time()
        if round:
            rates[name]["sent"].append(size / (sent - began) / 1e6)
            rates[name]["received"].append(size / (received - sent) / 1e6)
for name, r in rates.items():
    say("a Dask client %s, %%s: " %% name + ", ".join("%%s %%.0f MB/s (%%.0f to %%.0f), ratio %%.2f" %% (
        what, median(r[what]), min(r[what]), max(r[what]), median(a / b for a, b in zip(r[what], rates["direct"][what]))) for what in r))
`, packages, "tls://"+address+":8786", way)))
	s.must("cluster", "delete", c.ID)
}
