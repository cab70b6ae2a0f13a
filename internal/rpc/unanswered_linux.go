package rpc

import (
	"crypto/tls"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unansweredLimit is for how long a peer may not acknowledge what it was sent, or
// answer whether it is there.
const unansweredLimit = 30 * time.Second

// EndsWhenUnanswered has a connection end when its peer is gone without a word, or
// takes nothing of what it is sent for so long. The kernel would go on for a quarter
// of an hour.
func EndsWhenUnanswered(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: unansweredLimit / 3, Interval: unansweredLimit / 6, Count: 4})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unansweredLimit.Milliseconds()))
	})
}
