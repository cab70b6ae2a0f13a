package config

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// proxy reads proxy_address and proxy_bypass.
func (r *reader) proxy(address, bypass *yamlstrict.Node) *berth.Proxy {
	if !address.Present() {
		if bypass.Present() {
			bypass.FailKeyf("says what goes around the proxy, and there is no proxy_address")
		}
		return nil
	}
	out := proxyAddress(address)
	if out == nil {
		return nil
	}
	for _, item := range bypass.Items() {
		if b, ok := bypassEntry(item); ok {
			out.Bypass = append(out.Bypass, b)
		}
	}
	return out
}

// proxyAddress reads where a proxy is: a URL, or HOST:PORT of a SOCKS5 proxy. A
// password in it is a reference, and never shown.
func proxyAddress(n *yamlstrict.Node) *berth.Proxy {
	text := nonEmpty(n)
	if text == "" {
		return nil
	}
	if !strings.Contains(text, "://") {
		text = "socks5://" + text
	}
	const want = "want socks5://HOST:PORT, http://HOST:PORT, or HOST:PORT of a SOCKS5 proxy"
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.ContainsAny(u.Host, " \t\n") || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		n.Failf(want)
		return nil
	}
	out := &berth.Proxy{Address: u.Host}
	switch u.Scheme {
	case "socks5", "socks5h":
		out.Protocol = berth.ProxySOCKS5
	case "http":
		out.Protocol = berth.ProxyHTTP
	case "https":
		n.Failf("TLS to the proxy itself is not supported; " + want)
		return nil
	default:
		n.Failf(want)
		return nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch ip, notIP := netip.ParseAddr(u.Hostname()); {
	case u.Port() == "":
		n.Failf("the port of the proxy is missing: %s", want)
		return nil
	case err != nil || port == 0:
		n.Failf("the port of the proxy has to be from 1 to 65535")
		return nil
	case notIP == nil && !ip.Unmap().Is4():
		n.Failf("the proxy has to have an IPv4 address: tasks behind a proxy send nothing by IPv6")
		return nil
	case notIP == nil && (ip.IsLoopback() || ip.IsUnspecified()):
		n.Failf("is the task's own pod, as tasks see it; write an address of the proxy that pods reach")
		return nil
	case notIP != nil && !dnsSubdomain.MatchString(strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))):
		n.Failf("the proxy's host is neither an address nor a name: %s", want)
		return nil
	}
	if u.User != nil {
		out.User = u.User.Username()
		password, has := u.User.Password()
		out.Password = berth.Secret(password)
		switch {
		case has && !n.Referenced():
			n.Failf("must not hold a password in clear: write it as ${secret:KEY}, ${env:NAME} or ${file:PATH}, as in %s://USER:${secret:proxy}@%s", u.Scheme, u.Host)
			return nil
		case out.User == "":
			n.Failf("the user is missing before the password")
			return nil
		case out.Protocol == berth.ProxySOCKS5 && (len(out.User) > 255 || len(password) > 255):
			n.Failf("a user or password for SOCKS5 has at most 255 bytes")
			return nil
		}
	}
	return out
}

// bypassEntry reads what goes around the proxy: addresses, as names may come to
// mean others.
func bypassEntry(n *yamlstrict.Node) (b berth.ProxyBypass, ok bool) {
	text := nonEmpty(n)
	if text == "" {
		return b, false
	}
	rest := text
	if host, port, err := net.SplitHostPort(text); err == nil {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			n.Rejectf("the port has to be from 1 to 65535")
			return b, false
		}
		rest, b.Port = host, uint16(number)
	}
	var err error
	if strings.Contains(rest, "/") {
		b.Prefix, err = netip.ParsePrefix(rest)
	} else {
		var ip netip.Addr
		if ip, err = netip.ParseAddr(rest); err == nil {
			b.Prefix = netip.PrefixFrom(ip, ip.BitLen())
		}
	}
	switch {
	case err != nil:
		n.Rejectf("want addresses: 10.96.0.0/16, 10.96.0.10, or either with a port, 10.96.0.10:53; a name is not possible, as it may come to mean other addresses")
		return b, false
	case !b.Prefix.Addr().Is4():
		n.Rejectf("want IPv4: tasks behind a proxy send nothing by IPv6")
		return b, false
	case b.Prefix.Bits() == 0:
		n.Rejectf("would send everything around the proxy")
		return b, false
	case b.Prefix != b.Prefix.Masked():
		n.Rejectf("has bits beyond its length; write %s", b.Prefix.Masked())
		return b, false
	}
	return b, true
}
