package redirect

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// nameLimit is how long a name is asked for, to see whether it is of the bypass list.
const nameLimit = 3 * time.Second

// local is a proxy on 127.0.0.1, for programs that heed HTTP_PROXY and its
// like: HTTP and SOCKS5 on one port. It needs no login, and names are resolved
// by the proxy itself. It goes on to the proxy, but for what is reached directly.
type local struct {
	s      *sidecar
	server *http.Server
	conns  chan net.Conn
}

func newLocal(s *sidecar) *local {
	l := &local{s: s, conns: make(chan net.Conn)}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second}
	// A plain request goes to an HTTP proxy as it is: many let CONNECT pass to
	// port 443 alone.
	transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if s.order.Protocol != berth.ProxyHTTP || l.directly(r.Context(), withPort(r.URL.Host, "80")) != "" {
			return nil, nil
		}
		u := &url.URL{Scheme: "http", Host: s.proxy.proxies[0].String()}
		if login := s.order.Login; login != nil {
			u.User = url.UserPassword(login.User, login.Password.Reveal())
		}
		return u, nil
	}
	transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		if ip, err := netip.ParseAddrPort(address); err == nil && s.order.Protocol == berth.ProxyHTTP && s.isProxy(ip) {
			conn, err := s.proxy.connect(ctx)
			if err != nil {
				s.found(err)
				return nil, err
			}
			return &counted{Conn: conn, s: s}, nil
		}
		if to := l.directly(ctx, address); to != "" {
			return (&net.Dialer{Timeout: localDialLimit}).DialContext(ctx, "tcp4", to)
		}
		conn, early, err := s.dial(ctx, address)
		if err != nil {
			return nil, err
		}
		return &counted{Conn: &begun{conn, early}, s: s}, nil
	}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0), FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	l.server = &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect:
			l.connect(w, r)
		case r.URL.Host == "":
			http.Error(w, "this is a proxy: ask it for a whole URL", http.StatusBadRequest)
		default:
			s.connections.Add(1)
			forward.ServeHTTP(w, r)
		}
	})}
	go func() { _ = l.server.Serve(l) }()
	return l
}

// Accept gives the server what handle finds to be HTTP.
func (l *local) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *local) Close() error   { return nil }
func (l *local) Addr() net.Addr { return net.TCPAddrFromAddrPort(loopback(agent.ProxyLocalPort)) }

// handle tells by its first byte what a program speaks.
func (l *local) handle(conn *net.TCPConn) {
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	begin, err := peek(conn)
	_ = conn.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		conn.Close()
	case begin == socksVersion:
		l.socks(conn)
	default:
		l.conns <- conn
	}
}

func peek(conn *net.TCPConn) (byte, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
		return !errors.Is(failed, unix.EAGAIN)
	})
	switch err := errors.Join(err, failed); {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return b[0], nil
}

// connect makes the tunnel that a program asks for by HTTP.
func (l *local) connect(w http.ResponseWriter, r *http.Request) {
	target := withPort(r.Host, "443")
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	l.open(r.Context(), tcp, target, buffered.Reader, func(err error) error {
		text := "HTTP/1.1 200 Connection established\r\n\r\n"
		if err != nil {
			text = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" + err.Error() + "\n"
		}
		_, failed := io.WriteString(conn, text)
		return failed
	})
}

// open makes the tunnel that a program asked for, directly where the target is
// the pod itself or of the bypass list.
func (l *local) open(ctx context.Context, conn *net.TCPConn, target string, reader *bufio.Reader, ready func(error) error) {
	ahead, _ := reader.Peek(reader.Buffered())
	to := l.directly(ctx, target)
	if to == "" {
		l.s.tunnel(ctx, conn, target, ahead, ready)
		return
	}
	server, err := (&net.Dialer{Timeout: localDialLimit}).DialContext(ctx, "tcp4", to)
	said := ready(err)
	if err != nil {
		conn.Close()
		return
	}
	if _, err = server.Write(ahead); said != nil || err != nil {
		server.Close()
		conn.Close()
		return
	}
	var ignored atomic.Int64
	join(conn, server.(*net.TCPConn), &ignored, &ignored)
}

// directly returns the address to connect to without the proxy; empty where it
// is to be by the proxy. A name is resolved only where there is a bypass list.
func (l *local) directly(ctx context.Context, target string) string {
	host, port, err := splitHostPort(target)
	if err != nil {
		return ""
	}
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		to := netip.AddrPortFrom(ip.Unmap(), port)
		if ip.IsLoopback() || l.s.direct(to) {
			return to.String()
		}
		return ""
	}
	if len(l.s.order.Bypass) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, nameLimit)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return "" // the proxy may know it
	}
	for _, ip := range found {
		if to := netip.AddrPortFrom(ip.Unmap(), port); l.s.direct(to) {
			return to.String()
		}
	}
	return ""
}

// withPort adds the port that a URL leaves away.
func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	early []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.early) > 0 {
		n := copy(p, b.early)
		b.early = b.early[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// counted adds what goes over a connection to the sidecar's counts.
type counted struct {
	net.Conn
	s *sidecar
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.s.sent.Add(int64(n))
	return n, err
}
