package redirect

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNetwork gives the test a network of its own, which has an interface and
// these routes.
func ownNetwork(t *testing.T, routes ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes networks")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network of its own: %v", err)
	}
	for _, words := range append([]string{"link add eth0 type bridge", "address add 10.1.1.5/24 dev eth0", "link set eth0 up"}, routes...) {
		ip(t, words)
	}
}

func ip(t *testing.T, words string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", words, err, out)
	}
	return string(out)
}

// The routes of a pod whose node paces name another congestion control; what
// they say beside that stays, and so does the way to what goes around the proxy.
func TestRoutesOfAPodAreNotPaced(t *testing.T) {
	ownNetwork(t, "route add default via 10.1.1.1 dev eth0 mtu 1400", "route add 10.9.0.0/16 via 169.254.1.1 dev eth0 onlink")
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("bbr"), 0); err != nil {
		t.Skipf("no BBR: %v", err)
	}
	bypass := []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("10.8.0.0/13")}
	for range 2 { // the container may be run again
		if err := unpaceRoutes(bypass); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for line := range strings.Lines(ip(t, "route")) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"default via 10.1.1.1 dev eth0 mtu 1400 congctl reno",
		"10.1.1.0/24 dev eth0 proto kernel scope link src 10.1.1.5 congctl reno",
		"10.8.0.0/13 via 10.1.1.1 dev eth0 mtu 1400",
		"10.9.0.0/16 via 169.254.1.1 dev eth0 onlink",
		"192.0.2.7 via 10.1.1.1 dev eth0 mtu 1400",
	}
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], "linkdown ", "")
		got[i] = strings.TrimSuffix(got[i], " linkdown")
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the routes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A node that doesn't pace keeps its pods' routes.
func TestRoutesOfAPodAreKeptWhereNothingIsPaced(t *testing.T) {
	ownNetwork(t, "route add default via 10.1.1.1 dev eth0")
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(unpaced), 0); err != nil {
		t.Fatal(err)
	}
	before := ip(t, "route")
	if err := unpaceRoutes([]netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}); err != nil {
		t.Fatal(err)
	}
	if after := ip(t, "route"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Whatever a kernel says of a route is read without a panic.
func FuzzReadRoute(f *testing.F) {
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readRoute(data)
		if err != nil {
			return
		}
		r.destination()
		r.to(netip.MustParsePrefix("10.0.0.0/8"))
		_, _ = r.without(unpaced)
	})
}
