package lease

import (
	"slices"

	"github.com/berth-run/berth"
)

// Share says which server should hold each infrastructure: those that can
// reconcile it have even shares, give or take one, and as little as possible
// moves from who holds it now. Every server comes to the same answer by itself.
// An infrastructure that no server can reconcile is left out.
func Share(servers []berth.Server, held []berth.Lease) map[string]string {
	able := map[string][]string{} // by infrastructure: servers, in order
	load := map[string]int{}
	for _, server := range servers {
		load[server.ID] = 0
		for _, name := range server.Infrastructures {
			if !slices.Contains(able[name], server.ID) {
				able[name] = append(able[name], server.ID)
			}
		}
	}
	names := make([]string, 0, len(able))
	for name := range able {
		names = append(names, name)
		slices.Sort(able[name])
	}
	slices.Sort(names)

	out := map[string]string{}
	for _, lease := range held {
		if slices.Contains(able[lease.Infrastructure], lease.Holder) {
			out[lease.Infrastructure] = lease.Holder
			load[lease.Holder]++
		}
	}
	least := func(of []string) string {
		return slices.MinFunc(of, func(a, b string) int { return load[a] - load[b] }) // the first of several
	}
	for _, name := range names {
		if out[name] == "" {
			out[name] = least(able[name])
			load[out[name]]++
		}
	}
	for even := false; !even; {
		even = true
		for _, name := range names {
			from, to := out[name], least(able[name])
			if load[from] >= load[to]+2 && from == heaviest(out, load, able, to) {
				out[name] = to
				load[from]--
				load[to]++
				even = false
			}
		}
	}
	return out
}

// heaviest is the server with the most infrastructures among those that have
// one which another could take.
func heaviest(out map[string]string, load map[string]int, able map[string][]string, to string) string {
	var most string
	for name, server := range out {
		if !slices.Contains(able[name], to) {
			continue
		}
		if most == "" || load[server] > load[most] || load[server] == load[most] && server < most {
			most = server
		}
	}
	return most
}
