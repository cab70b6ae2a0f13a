package redirect

import (
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where a node's congestion control is BBR each connection is paced, by a timer
// for each packet. Between two programs of a pod, and to a proxy next door, that
// finds out nothing and costs half of the throughput: there it is Reno, which
// every kernel has and lets everybody have.
const (
	paced   = "bbr"
	unpaced = "reno"
	// nextDoor is the round trip to a proxy that is near.
	nextDoor = time.Millisecond
)

// withoutPacing is a Control of sockets that are not connected yet: once one
// was paced it is for ever.
func withoutPacing(_, _ string, conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) {
		if isPaced(int(fd)) {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, unpaced)
		}
	})
}

func isPaced(fd int) bool {
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	return err == nil && strings.HasPrefix(name, paced)
}

// pacedFar gives a connection that was made without pacing what the node has
// for all others, unless it is to somewhere near.
func pacedFar(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || time.Duration(info.Rtt)*time.Microsecond < nextDoor {
			return
		}
		// The node's own, of a socket that nothing was done to.
		fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(fresh)
		if name, err := unix.GetsockoptString(fresh, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
		}
	})
}
