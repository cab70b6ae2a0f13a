package control

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/rpc"
	"github.com/berth-run/berth/internal/server"
)

// ServerConfig says how a data directory is served over the network.
type ServerConfig struct {
	Config
	Listen          string        // HOST:PORT
	Advertise       []string      // names and addresses that clients use
	Peer            string        // HOST[:PORT] by which other servers of the database reach this one; empty: the first of these
	TLSCert, TLSKey string        // files; both empty: a generated CA in the data directory
	Dashboards      string        // HOST:PORT for the dashboards of clusters, apart from all else; empty: none
	WaitingFor      func(pid int) // told when another process is the host at the moment; 0: not known which
}

// Server is a host that stays, and serves its data directory over the network
// beside the socket for local guests.
type Server struct {
	URL    string
	CAPath string // of the generated CA; empty when certificates are given

	Dashboards string // where dashboards of clusters are; empty: nowhere

	hosting *hosting
	server  *server.Server
	socket  *net.TCPListener
	shown   *dashboards // nil: none
	name    string      // by which clients know this machine
}

// OpenServer becomes the host of a data directory, waiting until nobody else
// is, and serves it.
func OpenServer(ctx context.Context, c ServerConfig) (*Server, error) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, berth.Errorf(berth.CodeInvalid, "--tls-cert and --tls-key go together")
	}
	if err := newDirectory(c.DataDir); err != nil {
		return nil, err
	}
	socket, lock, err := listenAndLock(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &Server{socket: socket, server: server.New()}
	tlsConfig, err := s.tls(&c)
	var dashboards net.Listener
	if err == nil && c.Dashboards != "" {
		dashboards, err = s.openDashboards(ctx, c.Dashboards)
	}
	if err == nil {
		s.hosting, err = newHosting(ctx, c.Config, lock) // which has the lock from here on
		lock = nil
	}
	if err != nil {
		socket.Close()
		if dashboards != nil {
			dashboards.Close()
		}
		if lock != nil {
			lock.Close()
		}
		return nil, err
	}
	s.hosting.host.stay(ctx)
	s.serve(tlsConfig)
	if dashboards != nil {
		s.showDashboards(dashboards, tlsConfig, s.name)
	}
	return s, nil
}

// listenAndLock takes what was handed over, or opens the port, so that one that
// is taken shows at once, and waits for the lock.
func listenAndLock(ctx context.Context, c ServerConfig) (*net.TCPListener, *os.File, error) {
	if h, ok := server.Inherited(); ok && sameFile(h.Lock, filepath.Join(c.DataDir, lockName)) {
		listener, err := h.Listener()
		if err != nil {
			return nil, nil, berth.Errorf(berth.CodeInternal, "%w", err)
		}
		if tcp, ok := listener.(*net.TCPListener); ok {
			return tcp, h.Lock, nil
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, nil, berth.Errorf(berth.CodeInvalid, "cannot listen: %w: choose another address with --listen HOST:PORT", err)
	}
	file, err := awaitLock(ctx, c)
	if err != nil {
		listener.Close()
		return nil, nil, err
	}
	return listener.(*net.TCPListener), file, nil
}

func sameFile(file *os.File, path string) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	other, err := os.Stat(path)
	return err == nil && os.SameFile(mine, other)
}

// awaitLock takes the data directory's lock as soon as its host of the moment
// is gone; that host's own guests would take it too.
func awaitLock(ctx context.Context, c ServerConfig) (*os.File, error) {
	file, err := lock(c.DataDir)
	if !errors.Is(err, errHeld) {
		return file, err
	}
	if c.WaitingFor != nil {
		client := rpc.NewClient(SocketClient(c.DataDir), "http://berth", "")
		short, cancel := context.WithTimeout(ctx, time.Second)
		info, _ := client.Info(short) // one that doesn't answer is waited for as well
		cancel()
		client.Close()
		c.WaitingFor(info.PID)
	}
	type outcome struct {
		file *os.File
		err  error
	}
	taken := make(chan outcome)
	go func() {
		file, err := waitForLock(c.DataDir)
		select {
		case taken <- outcome{file, err}:
		case <-ctx.Done():
			if file != nil {
				file.Close()
			}
		}
	}()
	select {
	case o := <-taken:
		return o.file, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// waitForLock takes a lock when it becomes free: the kernel wakes us.
func waitForLock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, berth.Errorf(berth.CodeInternal, "cannot lock the data directory %s: %w", dir, err)
	}
	return file, nil
}

// tls returns how the port is secured, and notes the CA where it is ours.
func (s *Server) tls(c *ServerConfig) (*tls.Config, error) {
	port := strconv.Itoa(s.socket.Addr().(*net.TCPAddr).Port)
	advertise := c.Advertise
	if c.Peer != "" {
		host, peerPort, err := net.SplitHostPort(c.Peer)
		if err != nil {
			host, peerPort = strings.Trim(c.Peer, "[]"), port
		}
		c.Self.URL = "https://" + net.JoinHostPort(host, peerPort)
		advertise = append(append([]string{}, advertise...), host)
	}
	names := server.Names(s.socket.Addr(), advertise)
	s.URL, s.name = "https://"+net.JoinHostPort(names[0], port), names[0]
	if c.Self.URL == "" {
		c.Self.URL = s.URL
	}
	for _, name := range names {
		c.RegistryHosts = append(c.RegistryHosts, net.JoinHostPort(name, port))
	}
	if c.TLSCert != "" {
		pem, err := os.ReadFile(c.TLSCert)
		if err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "the certificate can't be read: %w", err)
		}
		c.Self.CA = string(pem) // the certificate itself will do, whoever signed it
		return server.FilesTLS(c.TLSCert, c.TLSKey, c.Log)
	}
	authority, err := server.OpenAuthority(c.DataDir)
	if err != nil {
		return nil, err
	}
	s.CAPath = authority.Path
	c.Self.CA = string(authority.PEM)
	c.CallbackCA = string(authority.PEM) // what agents verify callback_to by
	return server.GeneratedTLS(authority, c.DataDir, names, c.Log)
}

func (s *Server) serve(tlsConfig *tls.Config) {
	host := s.hosting.host
	metrics := server.NewMetrics(host.config.Version, host.figures)
	c := server.Config{
		TLS: tlsConfig, Log: host.config.Log, Metrics: metrics,
		Authenticate: host.authenticate,
		Ready:        host.ready(),
		Registry:     host.packages,
		Admits:       host.admits,
		CallbackPath: CallbackPath,
		Callback:     rpc.NewCallbackHandler(host.Told, engine.ErrOver, func(o rpc.CallbackOutcome) { metrics.Callback(string(o)) }),
	}
	c.OffersPath, c.Offers = OffersPath, rpc.NewOfferHandler(OffersPath, host.admitsOffer, host.offers.add)
	go func() {
		<-s.server.Ending()
		host.offers.close()
	}()
	c.APIPath, c.API = rpc.NewHandler(host.service(), rpc.HandlerOptions{Authenticate: host.authenticate, Ending: s.server.Ending(), Observe: metrics.Request})
	c.TunnelPath, c.Tunnel = rpc.TunnelPath, rpc.NewTunnelHandler(host.service(), rpc.HandlerOptions{Authenticate: host.authenticate, Ending: s.server.Ending(), Observe: metrics.Request})
	s.server.Serve(s.socket, c)
	host.config.Log.Info("serving", "url", s.URL, "version", host.config.Version, "instance", host.store.Instance(), "pid", os.Getpid())
}

// authenticate finds the caller of a request by its token, until that is
// revoked or expires.
func (h *Host) authenticate(r *http.Request) (context.Context, error) {
	if ctx, ok, err := h.fleet.authenticate(r.Context(), server.TokenOf(r)); ok {
		return ctx, err
	}
	token, err := h.Authenticate(r.Context(), server.TokenOf(r))
	if err != nil {
		return nil, err
	}
	ctx, done := h.sessions.begin(berth.WithCaller(r.Context(), token.Caller()), token)
	context.AfterFunc(r.Context(), done) // which the end of the request ends
	return ctx, nil
}

// Close ends the server: requests that run are finished, streams end and tell
// clients to come again, and the data directory is left to the next host.
func (s *Server) Close() error {
	if s.shown != nil {
		s.shown.close()
	}
	s.server.Stop()
	return s.hosting.Close()
}

// Restart ends the server like Close, and puts a program in its place that goes
// on with the same socket and lock: nobody is refused meanwhile. It returns only
// when that can't be done, with the server as it was where nothing was ended yet.
func (s *Server) Restart(path string, args []string) (ended bool, err error) {
	socket, err := s.socket.File()
	if err != nil {
		return false, err
	}
	if s.shown != nil {
		s.shown.close()
	}
	s.server.Stop()
	if err := s.hosting.leave(); err != nil {
		s.hosting.host.config.Log.Warn("not everything could be ended well before the restart", "error", err)
	}
	return true, server.Handover{Socket: socket, Lock: s.hosting.lock}.Exec(path, args)
}
