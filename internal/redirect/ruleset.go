package redirect

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// ruleset is what a pod may send to, in a table of its own for IPv4 and one for
// IPv6. TCP is redirected to the sidecar before it leaves, whoever sends it;
// only what the sidecar's user sends to the proxy goes there. What is left is
// refused where it begins, so that programs see at once that it is of no use,
// and once more where it would leave, where the interface is known for sure.
// IPv6 goes nowhere but to the pod itself.
type ruleset struct {
	proxies   []netip.AddrPort
	bypass    []berth.ProxyBypass
	resolvers []netip.Addr // may be asked by anybody
	redirect  bool
}

const tableName = "berth"

// Where things are in headers, in bytes.
const (
	ipDestination = 16 // of IPv4's
	portOffset    = 2  // the destination's, of TCP's and UDP's
)

// install makes the tables anew, all at once.
func (r ruleset) install() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	ip := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	// A table has to be there to be deleted: one from before, where the
	// container is run again.
	conn.AddTable(ip)
	conn.DelTable(ip)
	conn.AddTable(ip)
	if r.redirect {
		r.nat(conn, ip)
	}
	refuse := &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 13} // administratively prohibited
	r.filter(conn, ip, "output", nftables.ChainHookOutput, refuse)
	r.filter(conn, ip, "leaving", nftables.ChainHookPostrouting, &expr.Verdict{Kind: expr.VerdictDrop})
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		ip6 := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv6}
		conn.AddTable(ip6)
		conn.DelTable(ip6)
		conn.AddTable(ip6)
		refuse := &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 1} // administratively prohibited
		ruleset{}.filter(conn, ip6, "output", nftables.ChainHookOutput, refuse)
		ruleset{}.filter(conn, ip6, "leaving", nftables.ChainHookPostrouting, &expr.Verdict{Kind: expr.VerdictDrop})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	return nil
}

// nat redirects what isn't let through to the sidecar.
func (r ruleset) nat(conn *nftables.Conn, table *nftables.Table) {
	chain := conn.AddChain(&nftables.Chain{Name: "redirect", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	add := adder(conn, table, chain)
	add(leavesBy("lo"), accept())
	for _, b := range r.bypass {
		r.each(b, func(match []expr.Any) { add(match, accept()) })
	}
	for _, proxy := range r.proxies {
		add(user(agent.ProxyUID), destination(netip.PrefixFrom(proxy.Addr(), 32)), port(unix.IPPROTO_TCP, proxy.Port()), accept())
	}
	add(protocol(unix.IPPROTO_TCP), redirectTo(agent.ProxyPort))
	add(port(unix.IPPROTO_UDP, 53), redirectTo(agent.ProxyDNSPort))
}

// filter lets through what may leave, and does what is said with the rest. At
// the output hook the interface is that of before the redirection, so what goes
// to the sidecar is known by its address.
func (r ruleset) filter(conn *nftables.Conn, table *nftables.Table, name string, hook *nftables.ChainHook, rest expr.Any) {
	drop := nftables.ChainPolicyDrop
	chain := conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	add := adder(conn, table, chain)
	add(leavesBy("lo"), accept())
	if table.Family == nftables.TableFamilyIPv4 && hook == nftables.ChainHookOutput {
		add(destination(netip.MustParsePrefix("127.0.0.0/8")), accept())
	}
	for _, b := range r.bypass {
		r.each(b, func(match []expr.Any) { add(match, accept()) })
	}
	for _, resolver := range r.resolvers {
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			add(destination(netip.PrefixFrom(resolver, 32)), port(proto, 53), accept())
		}
	}
	for _, proxy := range r.proxies {
		to := append(destination(netip.PrefixFrom(proxy.Addr(), 32)), port(unix.IPPROTO_TCP, proxy.Port())...)
		add(user(agent.ProxyUID), to, accept())
		// What ends a connection may be the kernel's, and nobody's.
		add(established(), to, accept())
	}
	add([]expr.Any{rest})
}

// each calls fn with the matches of an entry of the bypass list.
func (r ruleset) each(b berth.ProxyBypass, fn func([]expr.Any)) {
	if b.Port == 0 {
		fn(destination(b.Prefix))
		return
	}
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		fn(append(destination(b.Prefix), port(proto, b.Port)...))
	}
}

func adder(conn *nftables.Conn, table *nftables.Table, chain *nftables.Chain) func(...[]expr.Any) {
	return func(parts ...[]expr.Any) {
		var all []expr.Any
		for _, part := range parts {
			all = append(all, part...)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: all})
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func leavesBy(name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equals(padded)}
}

func user(uid uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeySKUID, Register: 1}, equals(binaryutil.NativeEndian.PutUint32(uid))}
}

func protocol(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals([]byte{proto})}
}

func port(proto byte, number uint16) []expr.Any {
	return append(protocol(proto),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: 2}, equals(binaryutil.BigEndian.PutUint16(number)))
}

func destination(prefix netip.Prefix) []expr.Any {
	address := prefix.Masked().Addr().As4()
	match := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ipDestination, Len: 4}}
	if prefix.Bits() < 32 {
		mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - prefix.Bits()))
		if prefix.Bits() == 0 {
			mask = make([]byte, 4)
		}
		match = append(match, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)})
	}
	return append(match, equals(address[:]))
}

func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func redirectTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1},
	}
}

func equals(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
