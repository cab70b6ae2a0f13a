package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/lease"
	"github.com/berth-run/berth/internal/rpc"
)

const (
	// leavingLimit bounds how long a server that ends takes to say so to others.
	leavingLimit = 3 * time.Second
	// revokedEvery is how soon what is under way with a token ends that was
	// revoked on another server; clocks may differ by revokedBefore.
	revokedEvery  = 2 * time.Second
	revokedBefore = 10 * time.Minute
	// forwardPatience is how long a request waits for whoever takes an
	// infrastructure up: longer than a dead server's lease.
	forwardPatience = 45 * time.Second
)

// fleet is this server among those that share its store: each reconciles the
// infrastructures whose leases it holds, and passes on what is asked of others.
type fleet struct {
	host   *Host
	id     string
	keeper *lease.Keeper

	watching sync.WaitGroup
	stop     context.CancelFunc

	mu      sync.Mutex
	clients map[string]*http.Client // by URL and CA
}

func newFleet(h *Host) *fleet { return &fleet{host: h, clients: map[string]*http.Client{}} }

// join begins to take leases.
func (f *fleet) join(ctx context.Context) error {
	var err error
	if f.id, err = serverID(f.host.config.DataDir); err != nil {
		return err
	}
	f.keeper, err = lease.Open(ctx, f.host.store, lease.Config{Self: f.self, Taken: f.host.takeUp, Dropped: f.host.drop, Log: f.host.config.Log})
	if err == nil {
		f.host.engine.Under(f.keeper)
		f.keeper.Begin()
		ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
		f.watching.Go(func() { f.lookAround(ctx) })
	}
	return err
}

// lookAround ends what is under way here with tokens that were revoked on
// another server, and says once that logs are in several places.
func (f *fleet) lookAround(ctx context.Context) {
	warned := f.host.config.Storage != ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(revokedEvery):
		}
		if !warned && len(f.keeper.Sharing().Servers) > 1 {
			f.host.config.Log.Warn("other servers share the database, and not this one's logs and packages: give all of them one --storage directory")
			warned = true
		}
		f.endRevoked(ctx)
	}
}

// endRevoked ends what is under way here with tokens that were revoked elsewhere.
func (f *fleet) endRevoked(ctx context.Context) {
	ids, err := f.host.store.RevokedTokens(ctx, time.Now().Add(-revokedBefore))
	if err == nil { // a database that is away is told of by others
		f.host.sessions.end(ids)
	}
}

// serverID is the same for all servers that one data directory has, one after
// the other: who holds its lock needs not wait for the leases of the one before.
func serverID(dir string) (string, error) {
	path := filepath.Join(dir, "server-id")
	if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) != "" {
		return strings.TrimSpace(string(data)), nil
	}
	id := xid.New().String()
	return id, config.WriteSecret(path, []byte(id+"\n"))
}

func (f *fleet) self() berth.Server {
	self := f.host.config.Self
	self.ID = f.id
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	if f.host.file != nil {
		for _, entry := range f.host.file.Infrastructures {
			self.Infrastructures = append(self.Infrastructures, entry.Name)
		}
	}
	return self
}

// leave gives everything to the others.
func (f *fleet) leave() {
	if f.keeper == nil {
		return
	}
	f.stop()
	f.watching.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leavingLimit)
	defer cancel()
	if err := f.keeper.Close(ctx); err != nil {
		f.host.config.Log.Warn("other servers wait until the leases of this one run out", "error", err)
	}
}

// takeUp begins to reconcile an infrastructure whose lease was taken.
func (h *Host) takeUp(ctx context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.started[name]; ok {
		return nil
	}
	entry, err := h.entryLocked(name)
	if err != nil {
		return err
	}
	return h.startLocked(ctx, entry)
}

// drop ends the reconciling of an infrastructure.
func (h *Host) drop(name string) {
	h.mu.Lock()
	delete(h.started, name)
	h.mu.Unlock()
	h.clusters.Drop(name)
	h.schedules.Drop(name)
	h.runs.Drop(name)
	h.engine.Stop(name)
}

// lease returns the lease to commit under.
func (f *fleet) lease(infrastructure string) (berth.Lease, error) {
	if l, ok := f.keeper.Lease(infrastructure); ok {
		return l, nil
	}
	return berth.Lease{}, berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrFenced)
}

// elsewhere says that an infrastructure is another server's.
func elsewhere(infrastructure string) error {
	return berth.Errorf(berth.CodeUnavailable, "infrastructure %s is another server's: %w", infrastructure, berth.ErrFenced)
}

// holder returns the Service of the server that holds an infrastructure: this
// one's or a client of another, for the caller of the context. It waits while
// nobody does, and where gone did not serve it any more, until that may be
// another.
func (f *fleet) holder(ctx context.Context, infrastructure string, gone berth.Service) (berth.Service, error) {
	patience := time.NewTimer(forwardPatience)
	defer patience.Stop()
	for look := gone == nil; ; look = true {
		server, ok, changed := f.keeper.Holder(infrastructure)
		switch {
		case look && f.keeper.Reconciles(infrastructure):
			return &local{f.host, f, infrastructure}, nil
		case f.keeper.Trouble(infrastructure) != nil:
			return nil, f.keeper.Trouble(infrastructure)
		case forwarded(ctx):
			return nil, ending() // who asked looks again who holds it
		case look && ok && server.ID != f.id:
			return f.client(ctx, server)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-f.host.engine.Ending():
			return nil, ending()
		case <-patience.C:
			return nil, berth.Errorf(berth.CodeUnavailable, "no server reconciles infrastructure %s at the moment: berth infra list on each server says why", infrastructure)
		}
	}
}

// heldBySomebody waits a moment for a server to hold an infrastructure, which may
// just have been added, and to have taken it up if it is this one.
func (f *fleet) heldBySomebody(ctx context.Context, infrastructure string) bool {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		server, ok, changed := f.keeper.Holder(infrastructure)
		if f.keeper.Reconciles(infrastructure) || f.keeper.Trouble(infrastructure) != nil || ok && server.ID != f.id {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// ending sends a client, or a server that passed something on, to whoever
// serves now.
func ending() error { return berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding) }

// client returns the Service of another server, for the caller of the context.
func (f *fleet) client(ctx context.Context, server berth.Server) (berth.Service, error) {
	token, err := f.token(serverToken{Caller: f.host.caller(ctx)})
	if err != nil {
		return nil, err
	}
	return rpc.NewClient(f.httpClient(server), server.URL, token), nil
}

// httpClient verifies another server by what its row says, and the system's CAs.
func (f *fleet) httpClient(server berth.Server) *http.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := server.URL + "\n" + server.CA
	if client := f.clients[key]; client != nil {
		return client
	}
	client := &http.Client{
		Transport:     rpc.CheckAnswers(f.transport(server)),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	f.clients[key] = client
	return client
}

// transport verifies a server as httpClient says.
func (f *fleet) transport(server berth.Server) *http.Transport {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM([]byte(server.CA))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // servers reach each other themselves
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}
	return transport
}

// while returns a context that ends when this server doesn't reconcile an
// infrastructure any more.
func (f *fleet) while(ctx context.Context, infrastructure string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			_, _, changed := f.keeper.Holder(infrastructure)
			if !f.keeper.Reconciles(infrastructure) {
				cancel(errMoved)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// errMoved is why a request of an infrastructure that moved was broken off.
var errMoved = berth.Errorf(berth.CodeUnavailable, "the infrastructure moved to another server: %w", rpc.ErrGone)

// moved turns an error that a move caused into one that sends to the next server.
func moved(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errMoved), errors.Is(err, berth.ErrFenced):
		return errMoved
	}
	return err
}

// callbackCA is what agents verify callback_to by: it may lead to any server.
func (h *Host) callbackCA() string {
	if h.fleet == nil || h.config.CallbackCA == "" {
		return h.config.CallbackCA
	}
	all := h.config.CallbackCA
	for _, server := range h.fleet.keeper.Sharing().Servers {
		if server.CA != "" && !strings.Contains(all, server.CA) {
			all += server.CA
		}
	}
	return all
}
