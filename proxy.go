package berth

import "net/netip"

// Proxy is what everything that the tasks of an infrastructure send goes
// through (proxy_address).
type Proxy struct {
	Protocol string // ProxySOCKS5 or ProxyHTTP
	Address  string // HOST:PORT
	User     string // empty: no login
	Password Secret
	Bypass   []ProxyBypass
}

// Protocols of a proxy.
const (
	ProxySOCKS5 = "socks5"
	ProxyHTTP   = "http" // CONNECT, and whole requests of programs that know of a proxy
)

// ProxyBypass is what tasks reach without the proxy.
type ProxyBypass struct {
	Prefix netip.Prefix `json:"prefix"`
	Port   uint16       `json:"port,omitempty"` // of TCP and UDP; 0: everything
}

// Covers reports whether an address and port are reached without the proxy.
func (b ProxyBypass) Covers(to netip.AddrPort) bool {
	return b.Prefix.Contains(to.Addr().Unmap()) && (b.Port == 0 || b.Port == to.Port())
}
