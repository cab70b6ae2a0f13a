// Package server is the network side of a control plane that stays: one port
// with TLS, on which it serves what it is given as handlers, beside health and
// metrics of its own. It says who may reach what, bounds what clients can take
// of its memory and time, and ends without cutting what can be finished.
// It knows no tasks: package control wires it to the Service.
package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// Config says what is served.
type Config struct {
	TLS     *tls.Config
	Log     *slog.Logger
	Metrics *Metrics

	// Authenticate returns the context that a request is answered in, with its
	// caller. CodeUnauthorized when nobody vouches for it.
	Authenticate func(*http.Request) (context.Context, error)

	// Ready says why requests can't be answered well at the moment, or nil.
	Ready func(context.Context) error

	// API is mounted at APIPath; it authenticates by itself, with Authenticate,
	// and ends its streams when Ending is closed.
	APIPath string
	API     http.Handler

	// Tunnel, if any, is mounted at TunnelPath. It authenticates by itself, takes
	// connections over, and ends them when Ending is closed.
	TunnelPath string
	Tunnel     http.Handler

	// Registry, if any, is mounted at /v2/. It is asked only by callers whose
	// role allows the method: read to pull, write to push, admin to delete; and
	// by what Admits lets in beside them.
	Registry http.Handler
	Admits   func(*http.Request) bool

	// Callback, if any, is mounted at CallbackPath. It authenticates by itself.
	CallbackPath string
	Callback     http.Handler

	// Offers, if any, is mounted at OffersPath. It authenticates by itself, and takes
	// connections over.
	OffersPath string
	Offers     http.Handler

	// Stall is how long a client may neither send what it announced nor take
	// what it asked for; half a minute when it is zero.
	Stall time.Duration
}

const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	maxStreams     = 250 // a connection
	stallTimeout   = 30 * time.Second
	finishTimeout  = 4 * time.Second // for calls that run when it ends
)

// Server serves a Config.
type Server struct {
	config Config
	http   *http.Server
	cancel context.CancelCauseFunc // of all requests

	connections connections

	end    sync.Once
	ending chan struct{}
}

// New returns a server that Serve starts: the API's handler is made with its
// Ending before.
func New() *Server { return &Server{ending: make(chan struct{})} }

// Ending is closed when the server is about to end.
func (s *Server) Ending() <-chan struct{} { return s.ending }

// Serve answers on a listener until Stop, in the background.
func (s *Server) Serve(listener net.Listener, c Config) {
	if c.Stall == 0 {
		c.Stall = stallTimeout
	}
	s.config = c
	var base context.Context
	base, s.cancel = context.WithCancelCause(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	s.http = &http.Server{
		Handler:           patient(s.routes(), c.Stall),
		TLSConfig:         c.TLS,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: c.Stall, PingTimeout: c.Stall / 2, WriteByteTimeout: c.Stall},
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // what clients did wrong
		ConnState:         s.connections.changed,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	go func() {
		if err := s.http.ServeTLS(listener, "", ""); err != nil && err != http.ErrServerClosed { //nolint:errorlint // it is never wrapped
			c.Log.Error("the server no longer answers", "error", err)
		}
	}()
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(s.config.APIPath, s.config.API)
	if s.config.Tunnel != nil {
		mux.Handle(s.config.TunnelPath, s.config.Tunnel)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.forReaders(s.config.Metrics.Handler()))
	if s.config.Registry != nil {
		mux.Handle("/v2/", s.whileItStays(s.forPackages(s.config.Registry)))
	}
	if s.config.Callback != nil {
		mux.Handle(s.config.CallbackPath, s.whileItStays(s.config.Callback))
	}
	if s.config.Offers != nil {
		mux.Handle(s.config.OffersPath, s.whileItStays(s.config.Offers))
	}
	return mux
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.isEnding() {
		say(w, http.StatusServiceUnavailable, "the server is about to end")
		return
	}
	if err := s.config.Ready(r.Context()); err != nil {
		// Anybody may ask, so that it tells the kind; the log tells the rest.
		s.config.Log.Warn("not ready", "error", err)
		say(w, http.StatusServiceUnavailable, "the store can't be written: "+string(berth.CodeOf(err))+"; the server's log says more")
		return
	}
	say(w, http.StatusOK, "ok")
}

func (s *Server) isEnding() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// whileItStays sends requests away once the server is about to end.
func (s *Server) whileItStays(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isEnding() {
			w.Header().Set("Retry-After", "1")
			say(w, http.StatusServiceUnavailable, "the server is about to end")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // whoever asked may be gone
}

// Stop ends: nothing new is taken, streams end, what runs is given a while to
// finish, and is broken off then.
func (s *Server) Stop() {
	s.end.Do(func() { close(s.ending) })
	if s.finish(finishTimeout) {
		s.cancel(nil)
		return
	}
	s.cancel(berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding))
	s.finish(time.Second)
	_ = s.http.Close()
}

// finish takes no more connections, and waits until nothing goes on on those
// that there are, or for a time.
func (s *Server) finish(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.http.Shutdown(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; ; {
		select {
		case err := <-done:
			return err == nil
		case <-tick.C:
			if !s.connections.quiet() {
				quiet = 0
			} else if quiet++; quiet == 5 { // what a client sent before it knew has come by now
				return s.http.Close() == nil
			}
		}
	}
}
