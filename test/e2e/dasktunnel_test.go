//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"testing"
)

// How fast a tunnel is, compared with a client that connects to the scheduler's pod
// directly, which on this machine it can. Both speak the same TLS; each round
// measures both, in turn.
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
	direct := conn
	direct.Address = "tls://" + address + ":8786"
	fmt.Print(s.python(conn.client() + fmt.Sprintf(`
from statistics import median
other = Client(%q, security=client.security, set_as_default=False)
size = 256 << 20
data = os.urandom(size)
ratios = {"sent": [], "received": []}
for round in range(8):
    rates = {}
    for name, c in (("tunnel", client), ("direct", other)):
        began = time.time()
        assert c.run_on_scheduler(len, data) == size
        sent = time.time()
        assert len(c.run_on_scheduler(os.urandom, size)) == size
        received = time.time()
        began_random = time.time(); os.urandom(size); random = time.time() - began_random
        rates[name] = size / (sent - began) / 1e6, size / (received - sent - random) / 1e6
    for n, what in enumerate(("sent", "received")):
        if round:
            ratios[what].append(rates["tunnel"][n] / rates["direct"][n])
        say("round", round, what, "tunnel %%.0f MB/s, direct %%.0f MB/s, ratio %%.2f" %% (rates["tunnel"][n], rates["direct"][n], rates["tunnel"][n] / rates["direct"][n]))
say("tunnel of a Dask client %s, medians: sent ratio %%.2f, received ratio %%.2f" %% (median(ratios["sent"]), median(ratios["received"])))
`, direct.Address, way)))
	s.must("cluster", "delete", c.ID)
}
