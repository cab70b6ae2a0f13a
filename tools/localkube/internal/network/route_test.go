package network

import (
	"fmt"
	"strings"
	"testing"
)

// Recorded from Linux 6.18: a default route, a link's and a cluster's.
const routeTable = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
lk0	0000A00A	FEFFA00A	0003	0	0	0	0000FFFF	0	0	0
`

func TestParseRoutesLeavesOutDefaultRoutes(t *testing.T) {
	routes, err := parseRoutes(strings.NewReader(routeTable))
	if got, want := fmt.Sprint(routes), "[192.0.2.0/24 10.160.0.0/16]"; err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestParseRoutesRefusesWhatIsNoAddress(t *testing.T) {
	if routes, err := parseRoutes(strings.NewReader("header\neth0 xyz 0 0 0 0 0 0\n")); err == nil {
		t.Errorf("%v", routes)
	}
}
