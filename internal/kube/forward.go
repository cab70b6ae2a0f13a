package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/berth-run/berth/internal/engine"
)

var _ engine.Forwarder = (*Driver)(nil)

// Forward connects to a port on a pod's loopback, through the API server and
// the kubelet.
//
// It asks by SPDY first, and by a websocket where a proxy on the way doesn't
// know SPDY. kubectl does it the other way round; but a websocket is a GET,
// which takes the verb get on pods/portforward before Kubernetes 1.35, and
// always create: SPDY takes create alone.
func (d *Driver) Forward(ctx context.Context, pod string, port int) (net.Conn, error) {
	used := d.client.transport.current.Load()
	conn, err := d.forward(ctx, used, pod, port)
	if errors.Is(err, errUnauthorized) {
		if next := d.client.transport.renew(used); next != nil {
			conn, err = d.forward(ctx, next, pod, port)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, d.refusal(err, "create", "pods/portforward", pod)
	}
	return conn, nil
}

// errUnauthorized says that the API server doesn't take the credentials.
var errUnauthorized = apierrors.NewUnauthorized("the API server doesn't take the credentials")

func (d *Driver) forward(ctx context.Context, with *generation, pod string, port int) (net.Conn, error) {
	where := d.client.Clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(d.client.Namespace).Name(pod).SubResource("portforward").URL()
	dialer, err := forwardDialer(with.config, where, pod)
	if err != nil {
		return nil, err
	}
	type dialled struct {
		conn     httpstream.Connection
		protocol string
		err      error
	}
	answer := make(chan dialled, 1)
	go func() { // it takes no context
		conn, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		answer <- dialled{conn, protocol, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case <-ctx.Done():
		go func() {
			if late := <-answer; late.conn != nil {
				_ = late.conn.Close()
			}
		}()
		return nil, ctx.Err()
	case got := <-answer:
		if got.err != nil {
			return nil, got.err
		}
		if got.protocol != portforward.PortForwardProtocolV1Name {
			_ = got.conn.Close()
			return nil, fmt.Errorf("the API server forwards ports by %q, which is not known here", got.protocol)
		}
		conn, err := openForwarded(got.conn, pod, port)
		if err != nil {
			_ = got.conn.Close()
		}
		return conn, err
	}
}

// forwardDialer dials by SPDY, or else by a websocket.
func forwardDialer(config *rest.Config, where *url.URL, pod string) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	seen := &statusSeen{next: transport, pod: pod}
	byWebsocket, err := portforward.NewSPDYOverWebsocketDialer(where, config)
	if err != nil {
		return nil, err
	}
	seen.Dialer = portforward.NewFallbackDialer(spdy.NewDialer(upgrader, &http.Client{Transport: seen}, http.MethodPost, where), byWebsocket, func(err error) bool {
		return seen.refusal == nil && (seen.unknown || httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err))
	})
	return seen, nil
}

// statusSeen keeps a refusal of the API server's own as its error: a dialer
// makes a text of it.
type statusSeen struct {
	httpstream.Dialer
	next    http.RoundTripper
	pod     string
	refusal error
	unknown bool // an answer that is neither the API server's nor what was asked for
}

func (s *statusSeen) Dial(protocols ...string) (httpstream.Connection, string, error) {
	conn, protocol, err := s.Dialer.Dial(protocols...)
	switch {
	case err == nil:
	case s.refusal != nil:
		err = s.refusal
	case strings.Contains(err.Error(), "403 Forbidden"): // of a websocket's handshake, whose body nobody reads
		err = apierrors.NewForbidden(portforwards, s.pod, errors.New("cannot get resource \"pods/portforward\", which a websocket takes (and a proxy on the way does not let SPDY through)"))
	}
	return conn, protocol, err
}

var portforwards = schema.GroupResource{Resource: "pods/portforward"}

func (s *statusSeen) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := s.next.RoundTrip(r)
	if err != nil {
		return response, err
	}
	switch response.StatusCode {
	case http.StatusSwitchingProtocols:
		return response, nil
	case http.StatusUnauthorized:
		s.refusal = errUnauthorized
		return response, nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(text))
	if known, ok := apiStatus(text); ok {
		s.refusal = known
	}
	s.unknown = s.refusal == nil
	return response, nil
}

// apiStatus reads an error as API servers write it.
func apiStatus(text []byte) (error, bool) {
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return nil, false //nolint:nilerr // what isn't one is no error here
	}
	known := apierrors.FromObject(object)
	var status apierrors.APIStatus
	return known, errors.As(known, &status)
}

// openForwarded opens the two streams of a port: one for what goes wrong, which
// comes first, and one for the bytes.
func openForwarded(conn httpstream.Connection, pod string, port int) (net.Conn, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	trouble, err := conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	_ = trouble.Close() // nothing is said on it from here
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	f := &forwarded{Stream: data, conn: conn, pod: pod, port: port, told: make(chan struct{})}
	go func() {
		defer close(f.told)
		text, err := io.ReadAll(io.LimitReader(trouble, 64<<10))
		if err == nil && len(text) > 0 {
			f.trouble = fmt.Errorf("port %d of pod %s: %s", port, pod, strings.TrimSpace(string(text)))
			_ = data.Reset() // the kubelet has given it up, and says no more on it
		}
	}()
	return f, nil
}

// forwarded is one connection to a port of a pod.
type forwarded struct {
	httpstream.Stream
	conn httpstream.Connection
	pod  string
	port int

	told    chan struct{}
	trouble error // once told is closed
	closing sync.Once
}

func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.Stream.Read(p)
	return n, f.because(err)
}

func (f *forwarded) Write(p []byte) (int, error) {
	n, err := f.Stream.Write(p)
	return n, f.because(err)
}

// because says what the kubelet told of a connection that ended.
func (f *forwarded) because(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-f.told:
		if f.trouble != nil {
			return f.trouble
		}
	case <-time.After(100 * time.Millisecond): // it comes on another stream
	}
	return err
}

// CloseWrite tells the pod that nothing more comes.
func (f *forwarded) CloseWrite() error { return f.Stream.Close() }

// Close ends the connection both ways. What was written and not sent is lost.
func (f *forwarded) Close() error {
	err := error(nil)
	f.closing.Do(func() {
		_ = f.Stream.Reset() // else what comes still would hold the connection up
		err = f.conn.Close()
	})
	return err
}

// forwardedAddr is the port of a pod.
type forwardedAddr string

func (forwardedAddr) Network() string  { return "portforward" }
func (a forwardedAddr) String() string { return string(a) }

func (f *forwarded) LocalAddr() net.Addr  { return forwardedAddr("berth") }
func (f *forwarded) RemoteAddr() net.Addr { return forwardedAddr(f.pod + ":" + strconv.Itoa(f.port)) }

// Streams have no deadlines; who can't wait closes the connection.
func (f *forwarded) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (f *forwarded) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (f *forwarded) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
