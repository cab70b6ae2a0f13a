//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sniffer sees what pods send, on the cluster's side of their interfaces.
type sniffer struct {
	mu      sync.Mutex
	packets []packet
}

// packet is one that a network interface with an address sent.
type packet struct {
	at       time.Time
	mac      string
	src, dst netip.Addr
	proto    byte
	port     uint16 // the destination's, of TCP and UDP
}

func (p packet) String() string {
	return fmt.Sprintf("%s protocol %d to %s port %d from %s", p.at.Format("15:04:05.000"), p.proto, p.dst, p.port, p.src)
}

const protoTCP = 6

// inClusterNetwork calls fn in the network of the node that the tests run on.
func inClusterNetwork(t *testing.T, fn func() error) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(os.Getenv("BERTH_E2E_STATE"), "containerd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := regexp.MustCompile(`/run/localkube/[^/"]+`).FindString(string(data))
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		ns, err := os.Open(filepath.Join(dir, "net"))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = fn()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatalf("in the cluster's network: %v", err)
	}
}

// sniff begins to look, in the network of the cluster that the tests run on.
func sniff(t *testing.T) *sniffer {
	t.Helper()
	var fd int
	inClusterNetwork(t, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300) // ETH_P_ALL, big endian
		if err == nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
		}
		return err
	})
	s := &sniffer{}
	done, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 64<<10)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if n, _, err := unix.Recvfrom(fd, buffer, 0); err == nil {
				s.take(buffer[:n])
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; unix.Close(fd) })
	return s
}

func (s *sniffer) take(frame []byte) {
	if len(frame) < 34 {
		return
	}
	p := packet{at: time.Now(), mac: net.HardwareAddr(frame[6:12]).String()}
	body := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		header := int(body[0]&15) * 4
		p.src, p.dst, p.proto = netip.AddrFrom4([4]byte(body[12:16])), netip.AddrFrom4([4]byte(body[16:20])), body[9]
		if len(body) >= header+4 {
			p.port = binary.BigEndian.Uint16(body[header+2:])
		}
	case 0x86dd:
		if len(body) < 44 {
			return
		}
		p.src, p.dst, p.proto = netip.AddrFrom16([16]byte(body[8:24])), netip.AddrFrom16([16]byte(body[24:40])), body[6]
		p.port = binary.BigEndian.Uint16(body[42:])
	case 0x0806:
		return // who has an address: it goes no further than the node
	default:
		p.proto = 255
	}
	s.mu.Lock()
	s.packets = append(s.packets, p)
	s.mu.Unlock()
}

// of returns what the interface with an address sent.
func (s *sniffer) of(address string) []packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	ip := netip.MustParseAddr(address)
	mac := ""
	for _, p := range s.packets {
		if p.src == ip {
			mac = p.mac // the first that carries it is its own: others forward what they were given
			break
		}
	}
	var out []packet
	for _, p := range s.packets {
		if p.mac == mac {
			out = append(out, p)
		}
	}
	return out
}
