package lease

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/berth-run/berth"
)

func servers(infrastructures []string, ids ...string) []berth.Server {
	var list []berth.Server
	for _, id := range ids {
		list = append(list, berth.Server{ID: id, Infrastructures: infrastructures})
	}
	return list
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("site-%02d", i)
	}
	return names
}

func heldAs(share map[string]string) []berth.Lease {
	var list []berth.Lease
	for _, name := range slices.Sorted(maps.Keys(share)) {
		list = append(list, berth.Lease{Infrastructure: name, Holder: share[name]})
	}
	return list
}

func loads(share map[string]string) map[string]int {
	n := map[string]int{}
	for _, server := range share {
		n[server]++
	}
	return n
}

func moved(before, after map[string]string) int {
	n := 0
	for name, server := range after {
		if before[name] != "" && before[name] != server {
			n++
		}
	}
	return n
}

func TestInfrastructuresAreSharedEvenlyWithFewMoves(t *testing.T) {
	ten := numbered(10)
	one := Share(servers(ten, "a"), nil)
	if n := loads(one); n["a"] != 10 {
		t.Fatalf("a server alone holds %v", n)
	}
	two := Share(servers(ten, "a", "b"), heldAs(one))
	if n := loads(two); n["a"] != 5 || n["b"] != 5 || moved(one, two) != 5 {
		t.Errorf("a second one joined: %v, %d moved", n, moved(one, two))
	}
	three := Share(servers(ten, "a", "b", "c"), heldAs(two))
	if n := loads(three); n["c"] != 3 || moved(two, three) != 3 {
		t.Errorf("a third one joined: %v, %d moved", n, moved(two, three))
	}
	left := Share(servers(ten, "a", "c"), heldAs(three))
	if n := loads(left); n["a"] != 5 || n["c"] != 5 {
		t.Errorf("the second one left: %v", n)
	}
	for name, server := range three {
		if server != "b" && left[name] != server {
			t.Errorf("%s moved from %s to %s, though %s stayed", name, server, left[name], server)
		}
	}
}

func TestAServerGetsWhatItCanReconcile(t *testing.T) {
	list := []berth.Server{{ID: "a", Infrastructures: []string{"one", "two", "three"}}, {ID: "b", Infrastructures: []string{"three"}}, {ID: "c"}}
	got := Share(list, []berth.Lease{{Infrastructure: "one", Holder: "b"}, {Infrastructure: "gone", Holder: "a"}})
	if want := map[string]string{"one": "a", "two": "a", "three": "b"}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// However servers come and go: everything that can be held is, by one that is
// there; shares differ by one at most; nothing moves that need not; and once it
// is shared it stays so.
func TestSharesUnderChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := numbered(rapid.IntRange(0, 20).Draw(t, "infrastructures"))
		share := map[string]string{}
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 5, rapid.ID).Draw(t, "servers")
			next := Share(servers(all, ids...), heldAs(share))
			if len(next) != len(all) {
				t.Fatalf("%d of %d are held", len(next), len(all))
			}
			n := loads(next)
			low, high := len(all), 0
			for _, id := range ids {
				low, high = min(low, n[id]), max(high, n[id])
			}
			if high-low > 1 {
				t.Fatalf("shares %v", n)
			}
			// What a server gives away is what it had too much of.
			before := loads(share)
			for _, id := range ids {
				gave := 0
				for name, server := range share {
					if server == id && next[name] != id {
						gave++
					}
				}
				if floor := len(all) / len(ids); gave > max(0, before[id]-floor) {
					t.Fatalf("%s gave %d of its %d, and the share is %d", id, gave, before[id], floor)
				}
			}
			if again := Share(servers(all, ids...), heldAs(next)); !maps.Equal(again, next) {
				t.Fatalf("%v, and once more %v", next, again)
			}
			share = next
		}
	})
}
