package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPlansOfDifferentClustersDoNotOverlap(t *testing.T) {
	for i := range Size {
		for j := range i {
			if a, b := (Plan{Index: i}), (Plan{Index: j}); a.All().Overlaps(b.All()) {
				t.Errorf("%v and %v overlap", a.All(), b.All())
			}
		}
	}
}

func TestAPlanKeepsItsRangesApart(t *testing.T) {
	p := Plan{Index: Size - 1}
	if p.Pods().Overlaps(p.Services()) {
		t.Errorf("pods %v and services %v overlap", p.Pods(), p.Services())
	}
	if !p.Services().Contains(p.APIService()) || p.APIService() != p.Services().Addr().Next() {
		t.Errorf("the API server takes the first address of %v, not %v", p.Services(), p.APIService())
	}
	for _, address := range []netip.Addr{p.DNS(), p.Host(), p.Node()} {
		if !p.All().Contains(address) {
			t.Errorf("%v is not routed to the cluster", address)
		}
		if p.Pods().Contains(address) || p.Services().Contains(address) {
			t.Errorf("%v may be given to a pod or a service", address)
		}
	}
	if link := netip.PrefixFrom(p.Node(), linkBits).Masked(); !link.Contains(p.Host()) {
		t.Errorf("%v is not on the link %v", p.Host(), link)
	}
}

func TestAllocateSkipsWhatIsInUse(t *testing.T) {
	for name, test := range map[string]struct {
		taken map[int]bool
		inUse []string
		want  int
	}{
		"nothing in use":               {nil, nil, 0},
		"other clusters":               {map[int]bool{0: true, 1: true, 3: true}, nil, 2},
		"a route inside":               {nil, []string{"10.160.7.0/24"}, 1},
		"a route around several":       {nil, []string{"10.160.0.0/14"}, 4},
		"routes elsewhere":             {nil, []string{"192.168.0.0/16", "172.17.0.0/16"}, 0},
		"a cluster and a route beside": {map[int]bool{0: true}, []string{"10.161.255.252/30"}, 2},
	} {
		var inUse []netip.Prefix
		for _, prefix := range test.inUse {
			inUse = append(inUse, netip.MustParsePrefix(prefix))
		}
		if got, err := Allocate(test.taken, inUse); err != nil || got != test.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, test.want)
		}
	}
}

func TestAllocateSaysWhatToDoWhenAllIsInUse(t *testing.T) {
	_, err := Allocate(nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	if err == nil || !strings.Contains(err.Error(), "localkube down --all") {
		t.Errorf("%v", err)
	}
}
