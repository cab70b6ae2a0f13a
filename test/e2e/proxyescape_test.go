//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// escape is an image whose program tries to get past the proxy.
func escape(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "escape")
	build := exec.Command("go", "build", "-o", path, "./testdata/escape")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	host := registry(t, ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))).ServeHTTP)
	return pushProgram(t, host+"/escape:1", runtime.GOARCH, path)
}

// podAddress waits until a task's pod has an address.
func (s *site) podAddress(id string) string {
	s.t.Helper()
	address := ""
	waitFor(s.t, "the pod's address", time.Minute, func() bool {
		for _, pod := range s.pods() {
			if pod.Labels[berth.LabelTask] == id && pod.Status.PodIP != "" {
				address = pod.Status.PodIP
			}
		}
		return address != ""
	})
	return address
}

// Whatever a task tries and whoever it is, nothing leaves its pod but what goes
// to the proxy and to the bypass list: seen on the pod's own interface, from
// before its first instruction to after its last.
func TestProxyLetsNothingAround(t *testing.T) {
	image := escape(t)
	for name, tt := range map[string]struct {
		user string
		lost bool
	}{
		"as root":               {"0:0", false},
		"as somebody":           {"1000:1000", false},
		"as the sidecar's user": {fmt.Sprintf("%d:%d", agent.ProxyUID, agent.ProxyUID), false},
		"without the proxy":     {fmt.Sprintf("%d:%d", agent.ProxyUID, agent.ProxyUID), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "proxy")
			g := newGateway(t, nil)
			to, around := greeter(t), greeter(t)
			s.behind(g.address, "proxy_bypass: ["+around+"]\n")
			seen := sniff(t)
			id := s.detach("--user", tt.user, image, "--", to, "8s")
			address := s.podAddress(id)
			if tt.lost {
				waitFor(t, "its traffic", time.Minute, func() bool { return g.saw(to) > 0 })
				g.end()
			}
			if r := s.berth("task", "wait", id); r.code != 0 {
				t.Fatalf("exit %d: %s\n%s", r.code, r.stderr, s.must("task", "explain", id))
			}
			t.Logf("what the program was told:\n%s", s.must("task", "logs", id))
			waitFor(t, "the pod is gone", time.Minute, func() bool { return len(s.pods()) == 0 })
			proxy := netip.MustParseAddrPort(g.address)
			packets, passed, began := seen.of(address), 0, time.Time{}
			for _, p := range packets {
				switch {
				case p.proto == protoTCP && p.dst == proxy.Addr() && p.port == proxy.Port():
					passed++
					if began.IsZero() {
						began = p.at
					}
				case began.IsZero() && p.src.Is6():
					// The kernel's own, of an interface that has just been made: before
					// the rules, and so before every container but the one that makes them.
				default:
					t.Errorf("it got around: %s", p)
				}
			}
			t.Logf("%d packets left the pod, %d of them to the proxy", len(packets), passed)
			if passed == 0 || g.saw(to) == 0 {
				t.Errorf("the test saw nothing: %d packets, %d connections", passed, g.saw(to))
			}
			if g.saw(around) != 0 {
				t.Error("what is in the bypass list went through the proxy")
			}
		})
	}
}

// Without a proxy the same program sends all that it can, and the test sees it:
// what it doesn't see behind one isn't there.
func TestProxySnifferSeesWhatLeaves(t *testing.T) {
	s := newSite(t)
	seen := sniff(t)
	id := s.detach(escape(t), "--", greeter(t), "1s")
	address := s.podAddress(id)
	if r := s.berth("task", "wait", id); r.code != 0 {
		t.Fatal(r.stderr)
	}
	kinds := map[string]bool{}
	for _, p := range seen.of(address) {
		kinds[fmt.Sprintf("%d to %d", p.proto, p.port)] = true
	}
	for _, want := range []string{"17 to 9", "17 to 53", "17 to 443", "17 to 5353"} {
		if !kinds[want] {
			t.Errorf("protocol %s was not seen: %v", want, kinds)
		}
	}
}
