package images

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-run/berth"
)

// HandlerTransport answers requests by a handler of this process, so that a
// registry needs no port.
type HandlerTransport struct{ Handler http.Handler }

// RoundTrip runs the handler; bodies stream both ways.
func (t HandlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	request := r.Clone(r.Context())
	request.RequestURI = r.URL.RequestURI()
	request.RemoteAddr = "in-process"
	if request.Host == "" {
		request.Host = r.URL.Host
	}
	if request.Body == nil {
		request.Body = http.NoBody
	}
	if err := r.Context().Err(); err != nil {
		request.Body.Close()
		return nil, err // the handler might answer sooner than it is seen below
	}
	reader, writer := io.Pipe()
	w := &pipedResponse{header: http.Header{}, body: writer, ready: make(chan struct{})}
	go func() {
		defer request.Body.Close()
		defer func() {
			if p := recover(); p != nil { // as a server does: one request must not end the process
				w.fail(fmt.Errorf("%s %s: the handler gave up: %v", r.Method, r.URL.Path, p))
			}
		}()
		t.Handler.ServeHTTP(w, request)
		w.WriteHeader(http.StatusOK)
		writer.Close()
	}()
	select {
	case <-w.ready:
	case <-r.Context().Done():
		reader.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	if w.failure != nil {
		return nil, w.failure
	}
	response := &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: reader, Request: r, ContentLength: -1,
	}
	if n, err := strconv.ParseInt(w.sent.Get("Content-Length"), 10, 64); err == nil {
		response.ContentLength = n
	}
	if r.Method == http.MethodHead || w.status == http.StatusNoContent {
		response.Body = http.NoBody
		reader.Close()
	}
	return response, nil
}

type pipedResponse struct {
	header, sent http.Header
	status       int
	body         *io.PipeWriter
	failure      error // instead of an answer
	once         sync.Once
	ready        chan struct{}
}

func (w *pipedResponse) Header() http.Header { return w.header }

func (w *pipedResponse) WriteHeader(status int) {
	if status < 200 { // of those none matters here
		return
	}
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	})
}

func (w *pipedResponse) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// fail ends an answer that isn't whole.
func (w *pipedResponse) fail(err error) {
	w.once.Do(func() {
		w.failure = err
		close(w.ready)
	})
	w.body.CloseWithError(err)
}

// Verified is a transport that refuses requests in clear, as Remote's does; nil
// is the network.
func Verified(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = remote.DefaultTransport
	}
	return verified{next}
}

// verified refuses requests in clear, but to this machine itself: credentials
// and images go over TLS.
type verified struct{ next http.RoundTripper }

func (v verified) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		host := r.URL.Hostname()
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, berth.Errorf(berth.CodeInvalid, "the registry %s does not speak TLS: put a certificate before it", r.URL.Host)
		}
	}
	return v.next.RoundTrip(r)
}
