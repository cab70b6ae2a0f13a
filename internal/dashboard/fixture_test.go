package dashboard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// Ids of clusters: of two that run, of one that starts, of one that has ended, of
// somebody else's, and of none.
const (
	mine     = "kd1aaaaaaaaaaaaaaaaaa"
	yours    = "kd1bbbbbbbbbbbbbbbbbb"
	starting = "kd1cccccccccccccccccc"
	over     = "kd1dddddddddddddddddd"
	hidden   = "kd1eeeeeeeeeeeeeeeeee"
	missing  = "kd1ffffffffffffffffff"
)

const (
	annsToken = "berth_of-ann"
	bobsToken = "berth_of-bob"
	host      = "dash.example.org"
)

// clusters are heads of clusters in memory, and the server that knows tokens.
type clusters struct {
	handler *handler
	log     *lockedBuffer

	mu     sync.Mutex
	heads  map[string]*memory
	tokens map[string]berth.Caller
	asked  int   // how often a token was authenticated
	broken error // what authentication fails with, if it does
	dialed []string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// given returns a dashboards' handler before two clusters that both answer by head.
func given(t *testing.T, head http.Handler, change ...func(*Options)) *clusters {
	t.Helper()
	c := &clusters{
		log:    &lockedBuffer{},
		heads:  map[string]*memory{mine: serve(t, head), yours: serve(t, head)},
		tokens: map[string]berth.Caller{annsToken: {Name: "ann", Role: berth.RoleWrite}, bobsToken: {Name: "bob", Role: berth.RoleRead}},
	}
	o := Options{
		Authenticate: c.authenticate, Dial: c.dial, Key: bytes.Repeat([]byte{7}, minKey),
		Log: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&o)
	}
	c.handler = New(o).(*handler)
	c.handler.patience.wrongToken = 0
	t.Cleanup(c.handler.heads.proxy.Transport.(*http.Transport).CloseIdleConnections)
	return c
}

func (c *clusters) authenticate(_ context.Context, token string) (berth.Caller, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.broken != nil {
		return berth.Caller{}, c.broken
	}
	caller, ok := c.tokens[token]
	if !ok {
		return berth.Caller{}, berth.Errorf(berth.CodeUnauthorized, "the token is wrong: this server doesn't know it")
	}
	return caller, nil
}

func (c *clusters) revoke(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, token)
}

func (c *clusters) breaks(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
}

func (c *clusters) dials() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.dialed...)
}

func (c *clusters) dial(ctx context.Context, caller berth.Caller, cluster string) (net.Conn, error) {
	switch cluster {
	case starting:
		return nil, berth.Errorf(berth.CodeUnavailable, "the head of cluster demo is pending")
	case over:
		return nil, berth.Errorf(berth.CodeConflict, "cluster demo is stopped")
	case hidden:
		return nil, berth.Errorf(berth.CodeForbidden, "the token of %s has role %s, and may not connect to clusters", caller.Name, caller.Role)
	}
	c.mu.Lock()
	head := c.heads[cluster]
	c.dialed = append(c.dialed, caller.Name+" "+cluster)
	c.mu.Unlock()
	if head == nil {
		return nil, berth.NoSuchCluster(cluster)
	}
	return head.dial(ctx)
}

// memory is a listener whose connections are pipes.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemory() *memory {
	return &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// serve serves a handler in memory.
func serve(t *testing.T, handler http.Handler) *memory {
	m := newMemory()
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(m) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return m
}

func (m *memory) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case m.conns <- far:
		return noDeadline{near}, nil
	case <-m.closed:
		return nil, errors.New("nobody listens")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

// noDeadline is a connection as those through a Kubernetes API server are.
type noDeadline struct{ net.Conn }

func (noDeadline) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (noDeadline) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (noDeadline) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// headers are pairs of a name and a value.
type headers []string

// navigation is what a browser sends with the address of a page.
var navigation = headers{"Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none"}

func (c *clusters) request(method, target string, body io.Reader, with ...headers) *http.Request {
	r := httptest.NewRequest(method, target, body)
	r.Host = host
	for _, h := range with {
		for i := 0; i < len(h); i += 2 {
			if h[i] == "Host" {
				r.Host = h[i+1]
				continue
			}
			r.Header.Set(h[i], h[i+1])
		}
	}
	return r
}

// ask sends a request to the dashboards' handler.
func (c *clusters) ask(method, target string, with ...headers) *http.Response {
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, c.request(method, target, nil, with...))
	return w.Result()
}

// logIn posts the form of the login.
func (c *clusters) logIn(cluster, token, next string, with ...headers) *http.Response {
	w := httptest.NewRecorder()
	form := url.Values{"token": {token}, "next": {next}}
	own := headers{"Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html"}
	c.handler.ServeHTTP(w, c.request(http.MethodPost, "/"+cluster+"/login", strings.NewReader(form.Encode()), append([]headers{own}, with...)...))
	return w.Result()
}

// loggedIn returns the header of a session.
func (c *clusters) loggedIn(t *testing.T, cluster, token string) headers {
	t.Helper()
	res := c.logIn(cluster, token, "")
	if res.StatusCode != http.StatusSeeOther || len(res.Cookies()) != 1 {
		t.Fatalf("the login was answered %s: %s", res.Status, text(t, res))
	}
	return headers{"Cookie", res.Cookies()[0].Name + "=" + res.Cookies()[0].Value}
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// saying answers with what it was asked for.
func saying(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, r.Method+" "+r.RequestURI)
}
