package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
)

// TunnelPath is where connections to heads of clusters are made:
// TunnelPath + ID + "/" + port, by an upgrade of HTTP/1.1 to "tcp". What follows
// is bytes as they are, both ways. It is no call of Connect so that whoever
// speaks HTTP can do it, and as messages would be one more copy of each byte.
const TunnelPath = "/berth.v1/clusters/"

const tunnelProtocol = "tcp"

// NewTunnelHandler serves DialCluster of a Service; mount it at TunnelPath.
func NewTunnelHandler(service berth.Service, o HandlerOptions) http.Handler {
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
	errorWriter := connect.NewErrorWriter()
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		err := tunnel(w, r, service, o.Ending)
		code := "ok"
		if err != nil {
			err = toWire(err)
			code = connect.CodeOf(err).String()
			r.Header.Set("Content-Type", "application/json")
			_ = errorWriter.Write(w, r, err) // whoever asked may be gone
		}
		o.Observe("DialCluster", code, time.Since(began))
	})
	return &gate{options: o, next: next, errors: errorWriter}
}

// tunnel connects a request to the head of a cluster until either side ends. An
// error is one before that.
func tunnel(w http.ResponseWriter, r *http.Request, service berth.Service, ending <-chan struct{}) error {
	id, port, found := strings.Cut(strings.TrimPrefix(r.URL.Path, TunnelPath), "/")
	if !found || port != string(berth.ClusterScheduler) && port != string(berth.ClusterDashboard) {
		return berth.Errorf(berth.CodeNotFound, "%s: connect to %sCLUSTER/%s or .../%s", r.URL.Path, TunnelPath, berth.ClusterScheduler, berth.ClusterDashboard)
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), tunnelProtocol) || r.ProtoMajor != 1 {
		return berth.Errorf(berth.CodeInvalid, "connections to clusters are made by HTTP/1.1 with Connection: Upgrade and Upgrade: %s", tunnelProtocol)
	}
	head, err := service.DialCluster(r.Context(), id, berth.ClusterPort(port))
	if err != nil {
		return err
	}
	defer func() { _ = head.Close() }()
	controller := http.NewResponseController(w)
	conn, buffered, err := controller.Hijack()
	if err != nil {
		return berth.Errorf(berth.CodeInternal, "cannot take the connection over: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Time{}) // the server had set some for the request
	if port == string(berth.ClusterScheduler) {
		EndsWhenUnanswered(conn) // a client whose machine sleeps is none; Dask's own connections are as impatient
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + tunnelProtocol + "\r\n"
	secure, _ := conn.(*tls.Conn)
	if secure != nil && port == string(berth.ClusterScheduler) && buffered.Reader.Buffered() == 0 { // the dashboard's has no TLS of its own
		if binding := channelBinding(secure); binding != "" {
			answer += belowHeader + ": " + binding + "\r\n"
		} else {
			secure = nil
		}
	} else {
		secure = nil
	}
	if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
		return nil //nolint:nilerr // the client is gone
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-ending:
		case <-r.Context().Done(): // the token was revoked
		case <-over:
		}
		_ = conn.Close() // and what is below
		_ = head.Close()
	}()
	client := conn
	switch {
	case secure != nil:
		if client, err = belowIfAsked(secure); err != nil {
			return nil //nolint:nilerr // the client is gone
		}
	case buffered.Reader.Buffered() > 0:
		first, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
		client = &begun{Conn: conn, first: first}
	}
	Pipe(client, head)
	return nil
}

// pipeBuffer is how much is passed on at once.
const pipeBuffer = 256 << 10

var pipeBuffers = sync.Pool{New: func() any { b := make([]byte, pipeBuffer); return &b }}

// Pipe passes bytes on between two connections until both directions have ended,
// and closes both. The end of one direction is passed on, where that can be.
func Pipe(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { pass(a, b) })
	wg.Go(func() { pass(b, a) })
	wg.Wait()
}

func pass(to, from net.Conn) {
	if sink, source := bare(to), bare(from); sink != nil && source != nil { // the kernel passes it on, on Linux
		_, err := io.Copy(sink, source)
		passed(to, from, err)
		return
	}
	buffer := pipeBuffers.Get().(*[]byte)
	defer pipeBuffers.Put(buffer)
	// Neither end's own way of copying: some of them take small pieces.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buffer)
	passed(to, from, err)
}

// bare returns the socket that a connection is and nothing more, or nil.
func bare(conn net.Conn) net.Conn {
	if t, ok := conn.(*tunnelled); ok && t.below != nil {
		conn = t.below
	}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return conn
	}
	return nil
}

// passed ends one direction, or both after an error.
func passed(to, from net.Conn, err error) {
	if err != nil || closeWrite(to) != nil {
		_ = to.Close()
		_ = from.Close()
	}
}

var errNoHalf = errors.New("it can't be closed in one direction")

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errNoHalf
}

// DialCluster connects to the head of a cluster.
func (c *Client) DialCluster(ctx context.Context, idOrName string, port berth.ClusterPort) (net.Conn, error) {
	where := *c.url
	where.Path = TunnelPath + idOrName + "/" + string(port)
	where.RawPath = TunnelPath + url.PathEscape(idOrName) + "/" + string(port)
	// The request's context would end the connection, and it ends when the caller
	// does not wait any more.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	var got net.Conn
	traced := httptrace.WithClientTrace(lasting, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { got = info.Conn }})
	request, err := http.NewRequestWithContext(traced, http.MethodGet, where.String(), nil)
	if err != nil {
		cancel()
		return nil, berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", tunnelProtocol)
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.upgrading().RoundTrip(request) //nolint:bodyclose // it is the connection that is returned, or closed by who reads the refusal
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if known := transportError(err); known != nil {
			return nil, known
		}
		return nil, berth.Errorf(berth.CodeUnavailable, "%w: %s", ErrGone, err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		defer cancel()
		return nil, refusedTunnel(response)
	}
	stream, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		cancel()
		return nil, berth.Errorf(berth.CodeInternal, "the connection was upgraded, and can't be written to")
	}
	t := &tunnelled{ReadWriteCloser: stream, name: idOrName, end: cancel}
	if port == berth.ClusterScheduler && !c.proxied(request) { // proxies that look into connections may take it amiss
		if t.below, err = below(got, response, stream); err != nil {
			_ = t.Close()
			return nil, berth.Errorf(berth.CodeUnavailable, "%w: %s", ErrGone, err)
		}
		if t.below != nil {
			t.ReadWriteCloser = t.below
		}
	}
	go c.whileAnswered(lasting, t)
	return t, nil
}

// aliveEvery is how often it is asked whether the server of a tunnel is there, and
// aliveTimeout how long that may take. A machine that slept, or has another
// network, is not told otherwise for a quarter of an hour.
const (
	aliveEvery   = 10 * time.Second
	aliveTimeout = 20 * time.Second
)

// below returns the socket that is left of an upgraded connection on which the
// client says the first word: TLS is ended, where it is the server's own. nil where
// something is between.
func below(conn net.Conn, response *http.Response, stream io.Reader) (net.Conn, error) {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return bare(conn), nil
	}
	if binding := response.Header.Get(belowHeader); binding == "" || !sameBinding(secure, binding) {
		return nil, nil
	}
	return belowTLS(secure, stream)
}

// whileAnswered ends a tunnel whose server does not answer any more.
func (c *Client) whileAnswered(ctx context.Context, t *tunnelled) {
	ticker := time.NewTicker(aliveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		ask, cancel := context.WithTimeout(ctx, aliveTimeout)
		_, err := c.Info(ask)
		cancel()
		if err != nil && ctx.Err() == nil && (errors.Is(err, ErrGone) || errors.Is(err, context.DeadlineExceeded)) {
			_ = t.Close()
			return
		}
	}
}

// upgrading is the client's transport, by HTTP/1.1 alone: later ones upgrade
// nothing.
func (c *Client) upgrading() http.RoundTripper {
	c.upgradeOnce.Do(func() {
		next := c.http.Transport
		if checked, ok := next.(checking); ok {
			next = checked.next
		}
		transport, ok := next.(*http.Transport)
		if !ok {
			c.upgrade = next
			return
		}
		transport = transport.Clone()
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
		transport.TLSNextProto, transport.ForceAttemptHTTP2 = nil, false
		if transport.TLSClientConfig != nil {
			transport.TLSClientConfig = transport.TLSClientConfig.Clone()
			transport.TLSClientConfig.NextProtos = nil
		}
		transport.WriteBufferSize, transport.ReadBufferSize = pipeBuffer, pipeBuffer
		c.upgrade = transport
	})
	return c.upgrade
}

// proxied reports whether a request goes through an HTTP proxy.
func (c *Client) proxied(r *http.Request) bool {
	transport, ok := c.upgrading().(*http.Transport)
	if !ok || transport.Proxy == nil {
		return false
	}
	proxy, err := transport.Proxy(r)
	return err != nil || proxy != nil
}

// refusedTunnel is the error of an answer that is no tunnel.
func refusedTunnel(response *http.Response) error {
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	var told struct {
		Code    connect.Code `json:"code"`
		Message string       `json:"message"`
	}
	if err := json.Unmarshal(text, &told); err != nil || told.Message == "" {
		if response.StatusCode >= http.StatusInternalServerError {
			return berth.Errorf(berth.CodeUnavailable, "%w: it answered %s", ErrGone, response.Status)
		}
		return berth.Errorf(berth.CodeInvalid, "that is not a server of Berth that knows clusters: it answered %s; a proxy in front of it has to let HTTP upgrades through", response.Status)
	}
	if response.Header.Get(endingHeader) != "" {
		return berth.Errorf(berth.CodeUnavailable, "%w: %s", ErrGone, told.Message)
	}
	for code, known := range codes {
		if known == told.Code {
			return berth.Errorf(code, "%s", told.Message)
		}
	}
	return berth.Errorf(berth.CodeInternal, "%s", told.Message)
}

// tunnelled is a connection through a server.
type tunnelled struct {
	io.ReadWriteCloser
	name  string
	end   context.CancelFunc
	below net.Conn // what of it is a socket and nothing more, or nil
}

func (t *tunnelled) Close() error {
	err := t.ReadWriteCloser.Close()
	t.end()
	return err
}

func (t *tunnelled) CloseWrite() error {
	return closeWriteOf(t.ReadWriteCloser)
}

func closeWriteOf(stream io.ReadWriteCloser) error {
	if half, ok := stream.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errNoHalf
}

// tunnelAddr is one end of a connection through a server.
type tunnelAddr string

func (tunnelAddr) Network() string  { return "tunnel" }
func (a tunnelAddr) String() string { return string(a) }

func (t *tunnelled) LocalAddr() net.Addr              { return tunnelAddr("berth") }
func (t *tunnelled) RemoteAddr() net.Addr             { return tunnelAddr(t.name) }
func (t *tunnelled) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (t *tunnelled) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (t *tunnelled) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
