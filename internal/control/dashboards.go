package control

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/dashboard"
)

// dashboards serves the dashboards of clusters on a port of their own.
type dashboards struct {
	server *http.Server
	end    context.CancelFunc // of what pages hold open
}

// serveDashboards answers on a listener until it is closed. Browsers' websockets
// need HTTP/1.1.
func serveDashboards(listener net.Listener, tlsConfig *tls.Config, handler http.Handler, log *slog.Logger) *dashboards {
	d := &dashboards{}
	var base context.Context
	base, d.end = context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	d.server = &http.Server{
		Handler: handler, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if tlsConfig == nil {
		go d.server.Serve(listener) //nolint:errcheck // it ends when it is closed
		return d
	}
	d.server.TLSConfig = tlsConfig.Clone()
	d.server.TLSConfig.NextProtos = nil
	go d.server.ServeTLS(listener, "", "") //nolint:errcheck // it ends when it is closed
	return d
}

func (d *dashboards) close() {
	d.end()
	_ = d.server.Close()
}

// openDashboards opens the port of the dashboards.
func (s *Server) openDashboards(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "cannot listen for dashboards: %w: choose another address with --dashboards HOST:PORT", err)
	}
	return listener, nil
}

// showDashboards serves the dashboards of all clusters to those whose tokens may
// use them.
func (s *Server) showDashboards(listener net.Listener, tlsConfig *tls.Config, name string) {
	host := s.hosting.host
	s.Dashboards = "https://" + net.JoinHostPort(name, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	host.dashboards.Store(&s.Dashboards)
	s.shown = serveDashboards(listener, tlsConfig, dashboard.New(dashboard.Options{
		Authenticate: func(ctx context.Context, token string) (berth.Caller, error) {
			t, err := host.Authenticate(ctx, token)
			return t.Caller(), err
		},
		Dial: func(ctx context.Context, caller berth.Caller, cluster string) (net.Conn, error) {
			return host.service().DialCluster(berth.WithCaller(ctx, caller), cluster, berth.ClusterDashboard)
		},
		Key: host.store.AgentKey(), Secure: true, Log: host.config.Log,
	}), host.config.Log)
}

// LocalDashboard shows the dashboard of one cluster to whoever has its link, until
// ctx ends. Others on this machine can connect to the listener too, and see nothing.
func LocalDashboard(ctx context.Context, listener net.Listener, cluster string, dial func(context.Context) (net.Conn, error), log *slog.Logger) (link string) {
	token := rand.Text()
	shown := dashboard.New(dashboard.Options{
		Authenticate: func(_ context.Context, given string) (berth.Caller, error) {
			if subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1 {
				return berth.Caller{}, berth.Errorf(berth.CodeUnauthorized, "the token is wrong: use the link that berth cluster connect printed")
			}
			return berth.Caller{Name: "link"}, nil
		},
		Dial: func(ctx context.Context, _ berth.Caller, asked string) (net.Conn, error) {
			if asked != cluster {
				return nil, berth.NoSuchCluster(asked)
			}
			return dial(ctx)
		},
		Key: []byte(rand.Text() + rand.Text()), Log: log,
	})
	// The link logs in with the token that it has: the form of the login, filled in.
	open := "/" + cluster + "/open"
	mux := http.NewServeMux()
	mux.Handle("/", shown)
	mux.HandleFunc("GET "+open, func(w http.ResponseWriter, r *http.Request) {
		form := strings.NewReader(url.Values{"token": {r.URL.Query().Get("token")}}.Encode())
		login, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+r.Host+"/"+cluster+"/login", form)
		if err != nil {
			http.Error(w, "the link is wrong", http.StatusBadRequest)
			return
		}
		login.Host, login.RemoteAddr = r.Host, r.RemoteAddr
		login.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		login.Header.Set("Origin", "http://"+r.Host)
		login.Header.Set("Accept", r.Header.Get("Accept"))
		shown.ServeHTTP(w, login)
	})
	d := serveDashboards(listener, nil, mux, log)
	context.AfterFunc(ctx, d.close)
	return "http://" + listener.Addr().String() + open + "?token=" + token
}

// presented is a cluster as people see it here.
func (h *Host) presented(r *berth.ClusterRecord) berth.Cluster {
	return h.withDashboard(r.Shown())
}

// withDashboard adds to a cluster where this server shows its dashboard.
func (h *Host) withDashboard(c berth.Cluster) berth.Cluster {
	if base := h.dashboards.Load(); base != nil && !c.State.Terminal() {
		link := *base + "/" + c.ID + "/status"
		c.Dashboard = &link
	}
	return c
}
