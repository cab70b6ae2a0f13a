package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/rpc"
)

// Member is a Service on a data directory that many processes share: the
// first of them is its host and serves the others on a socket. When the host
// ends or dies, a guest takes its place; whatever was under way goes on, so a
// Member's calls and sequences outlive hosts.
type Member struct {
	*rpc.Resuming
	config Config

	mu      sync.Mutex
	service berth.Service     // that is used at the moment; nil before the first
	hosting *hosting          // nil for a guest
	http    http.RoundTripper // to the host; nil for the host itself
	closed  bool
}

var _ berth.Service = (*Member)(nil)

// Open joins a data directory, as its host or as a guest.
func Open(ctx context.Context, c Config) (*Member, error) {
	if err := newDirectory(c.DataDir); err != nil {
		return nil, err
	}
	m := &Member{config: c}
	m.Resuming = rpc.NewResuming(m.join, 0)
	_, err := m.join(ctx, nil)
	return m, err
}

// join returns the service to use, in place of one that is gone.
func (m *Member) join(ctx context.Context, gone berth.Service) (berth.Service, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, berth.Errorf(berth.CodeUnavailable, "the service is closed")
	}
	if m.service != nil && m.service != gone {
		return m.service, nil
	}
	// Between a lock that is held and a socket that answers lies what a host
	// needs to begin to listen, which it does first: a moment.
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		service, err := m.host(ctx)
		if errors.Is(err, errHeld) {
			service, err = m.guest(ctx)
		}
		if err == nil {
			m.service = service
			return service, nil
		}
		if !errors.Is(err, rpc.ErrGone) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// host becomes the host. errHeld when another process is.
func (m *Member) host(ctx context.Context) (berth.Service, error) {
	file, err := lock(m.config.DataDir)
	if err != nil {
		return nil, err
	}
	h, err := newHosting(ctx, m.config, file)
	if err != nil {
		return nil, err
	}
	m.hosting, m.http = h, nil
	return h.host.service(), nil
}

// guest connects to the host. rpc.ErrGone when there is none.
func (m *Member) guest(ctx context.Context) (berth.Service, error) {
	socket := SocketClient(m.config.DataDir)
	client := rpc.NewClient(socket, "http://berth", "")
	if _, err := client.Info(ctx); err != nil {
		client.Close()
		return nil, err
	}
	m.http = socket.Transport
	return client, nil
}

// SocketClient returns an HTTP client that reaches the host of a data directory.
func SocketClient(dir string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Protocols: cleartextHTTP2(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var conn net.Conn
			err := withSocket(dir, func(path string) error {
				var err error
				conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
				return err
			})
			return conn, err
		},
	}}
}

// RoundTrip reaches the registry of the data directory, wherever its host is:
// a Member is the transport of images.Local.
func (m *Member) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := m.join(r.Context(), nil); err != nil {
		return nil, err
	}
	m.mu.Lock()
	hosting, transport := m.hosting, m.http
	m.mu.Unlock()
	if hosting != nil {
		return images.HandlerTransport{Handler: hosting.host.packages}.RoundTrip(r)
	}
	return transport.RoundTrip(r)
}

// Hosting reports whether this process is the host at the moment.
func (m *Member) Hosting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hosting != nil
}

// Close leaves the data directory. A host's guests find another.
func (m *Member) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.service == nil {
		m.closed = true
		return nil
	}
	m.closed = true
	if m.hosting != nil {
		return m.hosting.Close()
	}
	return m.service.Close()
}
