// Command escape tries to send something past the proxy of its pod in every way
// that a program without privilege has, from its first instruction to its last.
// Its argument is HOST:PORT of a listener, and how long to go on.
package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

func main() {
	target, _ := net.ResolveTCPAddr("tcp4", os.Args[1])
	limit, _ := time.ParseDuration(os.Args[2])
	last := map[string]error{}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		for what, try := range tries(target) {
			last[what] = try()
		}
		if time.Since(began) > limit {
			break
		}
	}
	for what, err := range last {
		fmt.Printf("%s: %v\n", what, err)
	}
	_ = datagram(syscall.AF_INET, syscall.SOCK_DGRAM, 0, "", &syscall.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 9}})
}

func tries(target *net.TCPAddr) map[string]func() error {
	host := [4]byte(target.IP.To4())
	udp := func(port int, addr [4]byte, device string) func() error {
		return func() error {
			return datagram(syscall.AF_INET, syscall.SOCK_DGRAM, 0, device, &syscall.SockaddrInet4{Port: port, Addr: addr})
		}
	}
	six := func(addr string, kind, proto int) func() error {
		return func() error {
			return datagram(syscall.AF_INET6, kind, proto, "", &syscall.SockaddrInet6{Port: 9, Addr: [16]byte(net.ParseIP(addr).To16()), ZoneId: zone()})
		}
	}
	return map[string]func() error{
		"tcp":                   func() error { return connect("tcp4", target.String()) },
		"tcp by IPv6":           func() error { return connect("tcp6", "[2001:db8::9]:80") },
		"tcp by IPv6, one link": func() error { return connect("tcp6", "[fe80::9%eth0]:80") },
		"udp":                   udp(9, host, ""),
		"udp to a resolver":     udp(53, [4]byte{192, 0, 2, 53}, ""),
		"udp to port 443":       udp(443, [4]byte{192, 0, 2, 9}, ""),
		"udp broadcast":         udp(9, [4]byte{255, 255, 255, 255}, ""),
		"udp multicast":         udp(5353, [4]byte{224, 0, 0, 251}, "eth0"),
		"udp, loopback by eth0": udp(9, [4]byte{127, 0, 0, 5}, "eth0"),
		"udp by IPv6":           six("2001:db8::9", syscall.SOCK_DGRAM, 0),
		"udp by IPv6, one link": six("fe80::9", syscall.SOCK_DGRAM, 0),
		"udp by IPv6 multicast": six("ff02::1", syscall.SOCK_DGRAM, 0),
		"icmp": func() error {
			return datagram(syscall.AF_INET, syscall.SOCK_DGRAM, syscall.IPPROTO_ICMP, "", &syscall.SockaddrInet4{Addr: host})
		},
		"icmp, raw": func() error {
			return datagram(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP, "", &syscall.SockaddrInet4{Addr: host})
		},
		"icmp by IPv6": six("ff02::1", syscall.SOCK_DGRAM, syscall.IPPROTO_ICMPV6),
		"a packet": func() error {
			return datagram(syscall.AF_PACKET, syscall.SOCK_DGRAM, 0, "", &syscall.SockaddrLinklayer{Protocol: 8, Ifindex: int(zone()), Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}})
		},
		"sctp": func() error {
			return datagram(syscall.AF_INET, syscall.SOCK_STREAM, 132, "", &syscall.SockaddrInet4{Port: 9, Addr: host})
		},
	}
}

func zone() uint32 {
	if i, err := net.InterfaceByName("eth0"); err == nil {
		return uint32(i.Index)
	}
	return 0
}

func connect(network, address string) error {
	conn, err := net.DialTimeout(network, address, 300*time.Millisecond)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("GET /escaped HTTP/1.0\r\n\r\n"))
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, _ = conn.Read(make([]byte, 100))
	return err
}

func datagram(family, kind, proto int, device string, to syscall.Sockaddr) error {
	fd, err := syscall.Socket(family, kind|syscall.SOCK_NONBLOCK, proto)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_BROADCAST, 1)
	if device != "" {
		if err := syscall.SetsockoptString(fd, syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, device); err != nil {
			return err
		}
	}
	if kind == syscall.SOCK_STREAM {
		return syscall.Connect(fd, to)
	}
	return syscall.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 0, 'x'}, 0, to)
}
