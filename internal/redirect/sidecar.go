package redirect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

const (
	// checkEvery is how often a proxy that is in trouble is tried again.
	checkEvery = time.Second
	// silentFor is how long nothing may come through the proxy, while there are
	// connections, before it is looked whether it is still there.
	silentFor = 10 * time.Second
	// saveEvery is how often what was counted is written down.
	saveEvery = 250 * time.Millisecond
	// maxConnections bounds the tunnels at a time.
	maxConnections = 8192
	// localDialLimit bounds connecting to what is reached directly.
	localDialLimit = 30 * time.Second
)

// sidecar is what every connection of a pod ends up at.
type sidecar struct {
	order   *agent.Proxy
	proxy   *upstream
	slots   chan struct{}
	refused sync.Map // targets that the proxy would not connect to, told once

	sent, received, connections, troubles atomic.Int64
	open                                  atomic.Int64 // tunnels
	heard                                 atomic.Int64 // when the proxy last accepted something, in Unix seconds

	mu      sync.Mutex
	trouble string // "": the proxy can be used
	saved   agent.ProxyReport
	changed chan struct{} // wakes what looks after the proxy
}

// Serve takes in what the rules redirect until it is told to end. It serves
// from the beginning, and says when the proxy can be used.
func Serve(ctx context.Context, order *agent.Proxy) error {
	s := &sidecar{order: order, slots: make(chan struct{}, maxConnections), changed: make(chan struct{}, 1), trouble: notAsked}
	data, err := os.ReadFile(order.File("addresses"))
	if err != nil {
		return err
	}
	s.proxy = &upstream{order: order}
	if err := json.Unmarshal(data, &s.proxy.proxies); err != nil {
		return err
	}
	s.resume()
	transparent, err := listen(ctx, agent.ProxyPort)
	if err != nil {
		return err
	}
	local, err := listen(ctx, agent.ProxyLocalPort)
	if err != nil {
		return err
	}
	dns, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback(agent.ProxyDNSPort)))
	if err != nil {
		return err
	}
	programs := newLocal(s)
	go serve(transparent, func(conn *net.TCPConn) { s.transparent(ctx, conn, programs) })
	go serve(local, programs.handle)
	go newForwarder(s).serve(ctx, dns)
	go s.watch(ctx)
	s.keep(ctx)
	return nil
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func listen(ctx context.Context, port uint16) (*net.TCPListener, error) {
	listener, err := (&net.ListenConfig{Control: withoutPacing}).Listen(ctx, "tcp4", loopback(port).String())
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

func serve(listener *net.TCPListener, handle func(*net.TCPConn)) {
	for {
		conn, err := listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(10 * time.Millisecond) // out of files, for a moment
		default:
			go handle(conn)
		}
	}
}

// transparent serves a connection that a program made to somewhere else. One
// to the proxy itself is by a program that knows of it.
func (s *sidecar) transparent(ctx context.Context, conn *net.TCPConn, programs *local) {
	to, err := originalDestination(conn)
	if err != nil || to.Addr().IsLoopback() {
		reset(conn) // it was made to the sidecar itself
		return
	}
	if s.isProxy(to) {
		programs.handle(conn)
		return
	}
	s.tunnel(ctx, conn, to.String(), nil, nil)
}

// isProxy reports whether an address is the proxy's own.
func (s *sidecar) isProxy(to netip.AddrPort) bool { return slices.Contains(s.proxy.proxies, to) }

// direct reports whether an address is of the bypass list.
func (s *sidecar) direct(to netip.AddrPort) bool {
	return slices.ContainsFunc(s.order.Bypass, func(b berth.ProxyBypass) bool { return b.Covers(to) })
}

// tunnel joins a program's connection with one by the proxy. ready, where it is
// not nil, tells the program how that went before anything is copied; ahead is
// what the program sent before.
func (s *sidecar) tunnel(ctx context.Context, conn *net.TCPConn, target string, ahead []byte, ready func(error) error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		reset(conn)
		return
	}
	s.connections.Add(1)
	s.open.Add(1)
	defer s.open.Add(-1)
	server, early, err := s.dial(ctx, target)
	if ready != nil {
		if said := ready(err); err == nil && said != nil {
			server.Close()
			err = said
		}
	}
	if err != nil {
		if ready == nil {
			reset(conn)
		}
		conn.Close()
		return
	}
	_, err = conn.Write(early)
	if err == nil {
		_, err = server.Write(ahead)
	}
	if err != nil {
		server.Close()
		conn.Close()
		return
	}
	s.received.Add(int64(len(early)))
	s.sent.Add(int64(len(ahead)))
	join(conn, server, &s.sent, &s.received)
}

// dial connects by the proxy, and takes note of how that is.
func (s *sidecar) dial(ctx context.Context, target string) (*net.TCPConn, []byte, error) {
	server, early, err := s.proxy.dial(ctx, target)
	var wrong *unusable
	var late *slow
	switch {
	case errors.As(err, &wrong):
		s.found(err)
	case ctx.Err() != nil, errors.As(err, &late): // what looks after the proxy finds out
	default:
		s.found(nil)
	}
	if err != nil && wrong == nil {
		if _, told := s.refused.LoadOrStore(target, true); !told {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return server, early, err
}

// found takes note of whether the proxy can be used.
func (s *sidecar) found(err error) {
	text := ""
	if err == nil {
		s.heard.Store(time.Now().Unix())
	} else {
		text = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == s.trouble {
		return
	}
	if s.trouble == "" {
		s.troubles.Add(1)
	}
	s.trouble = text
	if text == "" {
		fmt.Fprintln(os.Stderr, "the proxy can be used")
	} else {
		fmt.Fprintln(os.Stderr, agent.ProxyTrouble+": "+text)
	}
	s.save(text)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *sidecar) inTrouble() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble != ""
}

// watch tries a proxy that is in trouble until it is not, and one that has been
// silent for long while there are connections. One that nobody uses is left alone.
func (s *sidecar) watch(ctx context.Context) {
	last := int64(-1)
	for ctx.Err() == nil {
		wait := silentFor
		received := s.received.Load()
		silent := s.open.Load() > 0 && received == last && time.Since(time.Unix(s.heard.Load(), 0)) > silentFor
		last = received
		if s.inTrouble() || silent {
			s.found(s.proxy.check(ctx))
			if s.inTrouble() {
				wait = checkEvery
			}
		}
		select {
		case <-ctx.Done():
		case <-s.changed:
		case <-time.After(wait):
		}
	}
}

// reset ends a connection as one that was never there.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// originalDestination returns where a redirected connection was made to.
func originalDestination(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to netip.AddrPort
	var failed error
	err = raw.Control(func(fd uintptr) {
		// struct sockaddr_in, in the place of another structure of that size.
		address, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err != nil {
			failed = err
			return
		}
		b := address.Multiaddr
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
	})
	return to, errors.Join(err, failed)
}
