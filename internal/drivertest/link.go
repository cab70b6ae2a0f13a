package drivertest

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Link is the connection between a driver and its infrastructure, which can be
// cut.
type Link struct {
	Address string // where drivers connect to

	network, target string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

// NewLink passes on what comes to a new address, on a network such as unix or
// tcp, to the target.
func NewLink(t *testing.T, network, address, target string) *Link {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Address: listener.Addr().String(), network: network, target: target, conns: map[net.Conn]bool{}}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { l.pass(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.Cut()
		passing.Wait()
	})
	return l
}

func (l *Link) pass(conn net.Conn) {
	defer conn.Close()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	there, err := dialer.DialContext(context.Background(), l.network, l.target)
	if err != nil {
		return
	}
	defer there.Close()
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		return
	}
	l.conns[conn], l.conns[there] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.copy(there, conn) })
	both.Go(func() { l.copy(conn, there) })
	both.Wait()
	l.mu.Lock()
	delete(l.conns, conn)
	delete(l.conns, there)
	l.mu.Unlock()
}

// copy passes on one direction, and its end.
func (l *Link) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Cut breaks all connections and lets no new one through.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for conn := range l.conns {
		conn.Close()
	}
}

// Mend lets connections through again.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
