package control

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/rpc"
)

// Member is a Service on a data directory that many processes share: the
// first of them is its host and serves the others on a socket. When the host
// ends or dies, a guest takes its place; whatever was under way goes on, so a
// Member's calls and sequences outlive hosts.
type Member struct {
	config Config

	mu      sync.Mutex
	backend *backend
	closed  bool
}

// backend is what a member uses at the moment.
type backend struct {
	service berth.Service
	hosting *hosting          // nil for a guest
	http    http.RoundTripper // to the host; nil for the host itself
}

// hosting is what a host holds beside the Host itself.
type hosting struct {
	host   *Host
	lock   *os.File
	server *http.Server
}

var _ berth.Service = (*Member)(nil)

// Open joins a data directory, as its host or as a guest.
func Open(ctx context.Context, c Config) (*Member, error) {
	if err := newDirectory(c.DataDir); err != nil {
		return nil, err
	}
	m := &Member{config: c}
	_, err := m.join(ctx, nil)
	return m, err
}

// join returns the backend to use, in place of one that is gone.
func (m *Member) join(ctx context.Context, gone *backend) (*backend, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, berth.Errorf(berth.CodeUnavailable, "the service is closed")
	}
	if m.backend != nil && m.backend != gone {
		return m.backend, nil
	}
	// Between a lock that is held and a socket that answers lies what a host
	// needs to begin to listen, which it does first: a moment.
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		b, err := m.host(ctx)
		if errors.Is(err, errHeld) {
			b, err = m.guest(ctx)
		}
		if err == nil {
			m.backend = b
			return b, nil
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
func (m *Member) host(ctx context.Context) (*backend, error) {
	file, err := lock(m.config.DataDir)
	if err != nil {
		return nil, err
	}
	listener, err := listen(m.config.DataDir)
	if err != nil {
		file.Close()
		return nil, err
	}
	// From here on guests may connect; they are answered once the host is up.
	host, err := newHost(ctx, m.config)
	if err != nil {
		listener.Close()
		file.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(rpc.NewHandler(host))
	mux.Handle("/v2/", host.packages)
	server := &http.Server{Handler: mux, Protocols: cleartextHTTP2(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends when it is closed
	return &backend{service: host, hosting: &hosting{host: host, lock: file, server: server}}, nil
}

func cleartextHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// guest connects to the host. rpc.ErrGone when there is none.
func (m *Member) guest(ctx context.Context) (*backend, error) {
	socket := SocketClient(m.config.DataDir)
	client := rpc.NewClient(socket, "http://berth", "")
	if _, err := client.Info(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return &backend{service: client, http: socket.Transport}, nil
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
	b, err := m.join(r.Context(), nil)
	if err != nil {
		return nil, err
	}
	if b.hosting != nil {
		return images.HandlerTransport{Handler: b.hosting.host.packages}.RoundTrip(r)
	}
	return b.http.RoundTrip(r)
}

// Hosting reports whether this process is the host at the moment.
func (m *Member) Hosting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.backend != nil && m.backend.hosting != nil
}

// Close leaves the data directory. A host's guests find another.
func (m *Member) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.backend == nil {
		m.closed = true
		return nil
	}
	m.closed = true
	h := m.backend.hosting
	if h == nil {
		return m.backend.service.Close()
	}
	h.host.engine.Drain() // guests are still served meanwhile
	err := errors.Join(h.server.Close(), h.host.Close())
	return errors.Join(err, h.lock.Close()) // last: who takes it finds everything written
}

// do makes a call, and makes it again with the next host when this one goes away.
func do[T any](ctx context.Context, m *Member, call func(berth.Service) (T, error)) (T, error) {
	var gone *backend
	for {
		b, err := m.join(ctx, gone)
		if err != nil {
			var none T
			return none, err
		}
		value, err := call(b.service)
		if !errors.Is(err, rpc.ErrGone) || b.hosting != nil {
			return value, err
		}
		gone = b
	}
}

// sequence yields what a sequence gives and goes on with the next host where
// the one before ended; open is asked to go on behind what was yielded.
func sequence[T any](ctx context.Context, m *Member, open func(berth.Service) iter.Seq2[T, error], yielded func(T)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		var gone *backend
		for {
			b, err := m.join(ctx, gone)
			if err != nil {
				yield(none, err)
				return
			}
			again := false
			for value, err := range open(b.service) {
				if errors.Is(err, rpc.ErrGone) && b.hosting == nil {
					again = true
					break
				}
				if err == nil {
					yielded(value)
				}
				if !yield(value, err) || err != nil {
					return
				}
			}
			if !again {
				return
			}
			gone = b
		}
	}
}

func (m *Member) Info(ctx context.Context) (berth.Info, error) {
	return do(ctx, m, func(s berth.Service) (berth.Info, error) { return s.Info(ctx) })
}

func (m *Member) SubmitTask(ctx context.Context, submission berth.Submission) (berth.Task, error) {
	if submission.Key == "" {
		submission.Key = xid.New().String() // here, so that a second try is the same submission
	}
	return do(ctx, m, func(s berth.Service) (berth.Task, error) { return s.SubmitTask(ctx, submission) })
}

func (m *Member) Task(ctx context.Context, id string) (berth.Task, error) {
	return do(ctx, m, func(s berth.Service) (berth.Task, error) { return s.Task(ctx, id) })
}

func (m *Member) Tasks(ctx context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	return do(ctx, m, func(s berth.Service) (berth.TaskPage, error) { return s.Tasks(ctx, q) })
}

func (m *Member) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return sequence(ctx, m, func(s berth.Service) iter.Seq2[berth.Task, error] { return s.WatchTask(ctx, id) }, func(berth.Task) {})
}

func (m *Member) TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[berth.Event, error] {
	return sequence(ctx, m, func(s berth.Service) iter.Seq2[berth.Event, error] { return s.TaskEvents(ctx, id, after, follow) },
		func(e berth.Event) { after = e.Seq })
}

func (m *Member) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return sequence(ctx, m, func(s berth.Service) iter.Seq2[berth.LogChunk, error] { return s.TaskLogs(ctx, id, q) },
		func(c berth.LogChunk) { q.Attempt, q.Offset, q.Tail = c.Attempt, c.Offset, 0 })
}

func (m *Member) CancelTask(ctx context.Context, id string) (berth.Task, error) {
	return do(ctx, m, func(s berth.Service) (berth.Task, error) { return s.CancelTask(ctx, id) })
}

func (m *Member) Package(ctx context.Context, infrastructure, name, version string) (berth.Package, error) {
	return do(ctx, m, func(s berth.Service) (berth.Package, error) { return s.Package(ctx, infrastructure, name, version) })
}

func (m *Member) Infrastructures(ctx context.Context) ([]berth.Infrastructure, error) {
	return do(ctx, m, func(s berth.Service) ([]berth.Infrastructure, error) { return s.Infrastructures(ctx) })
}

func (m *Member) CheckInfrastructure(ctx context.Context, name string) (berth.InfrastructureCheck, error) {
	return do(ctx, m, func(s berth.Service) (berth.InfrastructureCheck, error) { return s.CheckInfrastructure(ctx, name) })
}

func (m *Member) AddInfrastructure(ctx context.Context, source berth.InfrastructureSource) error {
	_, err := do(ctx, m, func(s berth.Service) (struct{}, error) { return struct{}{}, s.AddInfrastructure(ctx, source) })
	return err
}

func (m *Member) RemoveInfrastructure(ctx context.Context, name string, force bool) error {
	_, err := do(ctx, m, func(s berth.Service) (struct{}, error) { return struct{}{}, s.RemoveInfrastructure(ctx, name, force) })
	return err
}
