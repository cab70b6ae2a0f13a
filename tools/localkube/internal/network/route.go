package network

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"os"
	"strings"
)

// Routes returns the destinations that this machine has IPv4 routes for, except default routes, which
// contain everything and say nothing about use.
func Routes() ([]netip.Prefix, error) {
	file, err := os.Open("/proc/net/route")
	if err != nil {
		return nil, fmt.Errorf("read the machine's routes: %w", err)
	}
	defer file.Close()
	return parseRoutes(file)
}

// parseRoutes reads the kernel's table: a header, then interface, destination, gateway, flags, counts,
// metric and mask, numbers in hexadecimal of the machine's byte order.
func parseRoutes(table io.Reader) ([]netip.Prefix, error) {
	var routes []netip.Prefix
	lines := bufio.NewScanner(table)
	lines.Scan()
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		destination, err := address(fields[1])
		if err != nil {
			return nil, err
		}
		mask, err := address(fields[7])
		if err != nil {
			return nil, err
		}
		raw := mask.As4()
		if ones := bits.OnesCount32(binary.BigEndian.Uint32(raw[:])); ones > 0 {
			routes = append(routes, netip.PrefixFrom(destination, ones))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the machine's routes: %w", err)
	}
	return routes, nil
}

func address(field string) (netip.Addr, error) {
	raw, err := hex.DecodeString(field)
	if err != nil || len(raw) != 4 {
		return netip.Addr{}, fmt.Errorf("read the machine's routes: %q is no address", field)
	}
	return netip.AddrFrom4([4]byte{raw[3], raw[2], raw[1], raw[0]}), nil
}
