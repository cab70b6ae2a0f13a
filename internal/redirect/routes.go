package redirect

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// routeHeader is the length of struct rtmsg.
const routeHeader = 12

// unpaceRoutes has programs of the pod send without pacing (see paced), for what
// they connect to is the sidecar: the routes of the pod's network name another
// congestion control. What is of the bypass list keeps the node's. Only a
// node that paces has its pods' routes changed; without that it is just slower.
func unpaceRoutes(bypass []netip.Prefix) error {
	name, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil || !strings.HasPrefix(string(name), paced) {
		return err
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	routes, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.AF_INET}, make([]byte, routeHeader-1)...),
	})
	if err != nil {
		return err
	}
	for _, message := range routes {
		r, err := readRoute(message.Data)
		if err != nil {
			return err
		}
		if r.header[4] != unix.RT_TABLE_MAIN || r.header[7] != unix.RTN_UNICAST {
			continue
		}
		if to := r.destination(); slices.ContainsFunc(bypass, func(b netip.Prefix) bool { return b.Bits() <= to.Bits() && b.Contains(to.Addr()) }) {
			continue
		}
		if r.header[1] == 0 { // the default: for all that has no other
			for _, prefix := range bypass {
				// One that is there already is more to the point.
				_ = r.to(prefix).make(conn, netlink.Create|netlink.Excl)
			}
		}
		other, err := r.without(unpaced)
		if err != nil {
			return err
		}
		if err := other.make(conn, netlink.Create|netlink.Replace); err != nil {
			return err
		}
	}
	return nil
}

// route is one of the kernel's, as netlink has it.
type route struct {
	header     [routeHeader]byte // family, bits of the destination, of the source, TOS, table, protocol, scope, type, flags
	attributes []netlink.Attribute
}

func readRoute(data []byte) (r route, err error) {
	if len(data) < routeHeader {
		return r, unix.EBADMSG
	}
	copy(r.header[:], data)
	// The state of the link is the kernel's to say.
	flags := binary.NativeEndian.Uint32(r.header[8:]) & unix.RTNH_F_ONLINK
	binary.NativeEndian.PutUint32(r.header[8:], flags)
	r.attributes, err = netlink.UnmarshalAttributes(data[routeHeader:])
	r.attributes = slices.DeleteFunc(r.attributes, func(a netlink.Attribute) bool { return a.Type == unix.RTA_CACHEINFO })
	return r, err
}

// destination is where it leads; 0.0.0.0/0 is everywhere.
func (r route) destination() netip.Prefix {
	address := netip.IPv4Unspecified()
	for _, a := range r.attributes {
		if ip, ok := netip.AddrFromSlice(a.Data); ok && a.Type == unix.RTA_DST {
			address = ip
		}
	}
	return netip.PrefixFrom(address, int(r.header[1]))
}

// to is the same route to another destination.
func (r route) to(prefix netip.Prefix) route {
	r.header[1] = byte(prefix.Bits())
	address := prefix.Masked().Addr().As4()
	r.attributes = append(slices.Clone(r.attributes), netlink.Attribute{Type: unix.RTA_DST, Data: address[:]})
	return r
}

// without is the same route with another congestion control.
func (r route) without(name string) (route, error) {
	var metrics []netlink.Attribute
	r.attributes = slices.Clone(r.attributes)
	for i, a := range r.attributes {
		if a.Type&^unix.NLA_F_NESTED != unix.RTA_METRICS {
			continue
		}
		var err error
		if metrics, err = netlink.UnmarshalAttributes(a.Data); err != nil {
			return r, err
		}
		r.attributes = slices.Delete(r.attributes, i, i+1)
		break
	}
	metrics = slices.DeleteFunc(metrics, func(a netlink.Attribute) bool { return a.Type == unix.RTAX_CC_ALGO })
	metrics = append(metrics, netlink.Attribute{Type: unix.RTAX_CC_ALGO, Data: append([]byte(name), 0)})
	data, err := netlink.MarshalAttributes(metrics)
	r.attributes = append(r.attributes, netlink.Attribute{Type: unix.RTA_METRICS, Data: data})
	return r, err
}

// make has the kernel take it.
func (r route) make(conn *netlink.Conn, how netlink.HeaderFlags) error {
	data, err := netlink.MarshalAttributes(r.attributes)
	if err != nil {
		return err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWROUTE, Flags: netlink.Request | netlink.Acknowledge | how},
		Data:   append(r.header[:], data...),
	})
	return err
}
