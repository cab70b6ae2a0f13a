package redirect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/berth-run/berth/internal/agent"
)

// lookupLimit is how long the proxy's name is asked for: the network of a pod
// that has just begun may take a moment.
const lookupLimit = 15 * time.Second

var errNameless = errors.New("does not resolve")

// Rules closes the pod's network but for the proxy and the bypass list, and
// leaves word for the sidecar where the proxy is. While the name of the proxy
// is asked for, only resolvers can be reached.
func Rules(ctx context.Context, order *agent.Proxy) error {
	host, port, err := splitHostPort(order.Address)
	if err != nil {
		return err
	}
	proxies := []netip.AddrPort{}
	if ip, err := netip.ParseAddr(host); err == nil {
		proxies = append(proxies, netip.AddrPortFrom(ip.Unmap(), port))
	} else {
		if err := program(ruleset{resolvers: resolvers()}); err != nil {
			return err
		}
		found, err := lookup(ctx, host)
		if err != nil {
			return fmt.Errorf("%s: the name %s of the proxy %w: %w", agent.ProxyTrouble, host, errNameless, err)
		}
		for _, ip := range found {
			proxies = append(proxies, netip.AddrPortFrom(ip, port))
		}
	}
	if err := program(ruleset{proxies: proxies, bypass: order.Bypass, redirect: true}); err != nil {
		return err
	}
	bypass := []netip.Prefix{}
	for _, b := range order.Bypass {
		bypass = append(bypass, b.Prefix)
	}
	_ = unpaceRoutes(bypass) // it is slower without
	data, err := json.Marshal(proxies)
	if err != nil {
		return err
	}
	return os.WriteFile(order.File("addresses"), data, 0o644)
}

func program(r ruleset) error {
	if err := r.install(); err != nil {
		return fmt.Errorf("the rules that keep traffic from going around the proxy could not be made: %w; the nodes' kernel needs nf_tables with NAT (NFT_REDIR, NFT_REJECT)", err)
	}
	return nil
}

// lookup asks for the IPv4 addresses of a name until there is an answer.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	var last error
	for {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
		if err == nil && len(found) > 0 {
			for i := range found {
				found[i] = found[i].Unmap()
			}
			return found, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last == nil {
				last = errors.New("it has no IPv4 address")
			}
			return nil, last
		case <-time.After(500 * time.Millisecond):
		}
	}
}
