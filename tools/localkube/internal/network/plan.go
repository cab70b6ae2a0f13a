// Package network gives each cluster addresses and a network namespace of its own, joined to the
// machine by one pair of virtual interfaces. Inside there is no default route: what a pod sends
// reaches the cluster and the machine, and nothing else.
package network

import (
	"fmt"
	"net/netip"
)

// Each cluster has 10.X.0.0/16, with X from firstOctet on; Size clusters fit a machine.
const (
	firstOctet = 160
	Size       = 32
)

// Plan is the addresses of one cluster, all derived from its index.
type Plan struct {
	// Index is the cluster's number on this machine, from 0 to Size-1.
	Index int
}

func (p Plan) at(third, fourth byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(firstOctet + p.Index), third, fourth})
}

// All contains every address of the cluster; the machine routes it to the cluster.
func (p Plan) All() netip.Prefix { return netip.PrefixFrom(p.at(0, 0), 16) }

// Pods has room for about 4,000 pods.
func (p Plan) Pods() netip.Prefix { return netip.PrefixFrom(p.at(0, 0), 20) }

// Services is the range of cluster IPs.
func (p Plan) Services() netip.Prefix { return netip.PrefixFrom(p.at(64, 0), 20) }

// APIService is the cluster IP of the service "kubernetes": the range's first address, as the API
// server chooses it.
func (p Plan) APIService() netip.Addr { return p.at(64, 1) }

// DNS is where pods send their queries. It is no cluster IP, so that names work without kube-proxy.
func (p Plan) DNS() netip.Addr { return p.at(128, 53) }

// Host is the machine's end of the link: pods reach the machine's listeners there.
func (p Plan) Host() netip.Addr { return p.at(255, 253) }

// Node is the cluster's end of the link: the node's address and the API server's.
func (p Plan) Node() netip.Addr { return p.at(255, 254) }

// linkBits is the length of the link's prefix, which contains Host and Node.
const linkBits = 30

// Allocate returns the first index that no other cluster has and whose range no route or interface of
// the machine overlaps.
func Allocate(taken map[int]bool, inUse []netip.Prefix) (int, error) {
	for index := range Size {
		if !taken[index] && !overlaps(Plan{Index: index}.All(), inUse) {
			return index, nil
		}
	}
	return 0, fmt.Errorf("find a free address range among 10.%d.0.0/16 to 10.%d.0.0/16: all are taken by clusters or routes of this machine: run `localkube down --all`, or see `ip route`",
		firstOctet, firstOctet+Size-1)
}

func overlaps(prefix netip.Prefix, others []netip.Prefix) bool {
	for _, other := range others {
		if prefix.Overlaps(other) {
			return true
		}
	}
	return false
}
