package kube

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// renewEvery bounds how often credentials are read again, however many
// requests are refused at once.
const renewEvery = time.Second

// reloadingTransport sends requests with credentials that it can exchange: on
// a 401 it reads them from their source again, and sends the request once more
// when they have changed.
//
//	request ─> current generation ─> 401? ─> renew ─> changed? ─> once more
type reloadingTransport struct {
	read    func() (*access, error)
	current atomic.Pointer[generation]

	mu       sync.Mutex // of renewing
	renewed  time.Time  // when credentials were last read
	hopeless time.Time  // until then a plugin's new credentials are of no use
}

// generation is one version of the credentials.
type generation struct {
	*access
	transport http.RoundTripper
}

func newReloadingTransport(first *access, read func() (*access, error)) (*reloadingTransport, error) {
	g, err := newGeneration(first)
	if err != nil {
		return nil, err
	}
	t := &reloadingTransport{read: read}
	t.current.Store(g)
	return t, nil
}

func newGeneration(a *access) (*generation, error) {
	transport, err := rest.TransportFor(a.config)
	if err != nil {
		return nil, err
	}
	if a.config.ExecProvider != nil {
		transport = &patientTransport{transport}
	}
	return &generation{access: a, transport: transport}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *reloadingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	used := t.current.Load()
	resp, err := used.transport.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	again, ok := replay(req)
	if !ok {
		return resp, nil
	}
	next := t.renew(used)
	if next == nil {
		return resp, nil
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is kept
	_ = resp.Body.Close()
	resp, err = next.transport.RoundTrip(again)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && next == used {
		t.mu.Lock()
		t.hopeless = time.Now().Add(renewEvery)
		t.mu.Unlock()
	}
	return resp, err
}

// renew returns credentials that are worth another try after those used were
// refused, or nil.
func (t *reloadingTransport) renew(used *generation) *generation {
	t.mu.Lock()
	defer t.mu.Unlock()
	if current := t.current.Load(); current != used {
		return current // somebody else was faster
	}
	now := time.Now()
	if now.Sub(t.renewed) >= renewEvery {
		t.renewed = now
		read, err := t.read()
		// Another server under the same name is not for us to follow: whoever
		// watches infra.yml and its files decides about that.
		if err == nil && read.fingerprint != used.fingerprint && read.config.Host == used.config.Host {
			if next, err := newGeneration(read); err == nil {
				t.current.Store(next)
				return next
			}
		}
	}
	// client-go has run the plugin again by now, but leaves the request as it is.
	if used.config.ExecProvider != nil && now.After(t.hopeless) {
		return used
	}
	return nil
}

// exchange uses other credentials in place of those used, unless that was done
// meanwhile.
func (t *reloadingTransport) exchange(used *generation, next *access) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.Load() != used {
		return nil
	}
	g, err := newGeneration(next)
	if err == nil {
		t.current.Store(g)
	}
	return err
}

// replay returns a copy of a request that was sent already.
func replay(req *http.Request) (*http.Request, bool) {
	again := req.Clone(req.Context())
	if req.Body == nil || req.Body == http.NoBody {
		return again, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again.Body = body
	return again, true
}

// WrappedRoundTripper lets client-go find the transport below, to close idle
// connections.
func (t *reloadingTransport) WrappedRoundTripper() http.RoundTripper {
	return t.current.Load().transport
}

// patientTransport gives up on a request whose context has ended while an exec
// plugin still runs: client-go runs plugins without a time limit, and one that
// waits for the network would hold whoever asked for ever.
type patientTransport struct{ below http.RoundTripper }

func (t *patientTransport) WrappedRoundTripper() http.RoundTripper { return t.below }

func (t *patientTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	type answer struct {
		resp *http.Response
		err  error
	}
	ctx := req.Context()
	answered := make(chan answer, 1)
	go func() {
		resp, err := t.below.RoundTrip(req) //nolint:bodyclose // whoever takes the answer closes it
		answered <- answer{resp, err}
	}()
	select {
	case a := <-answered:
		return a.resp, a.err
	case <-ctx.Done():
		go func() {
			if a := <-answered; a.resp != nil {
				_ = a.resp.Body.Close()
			}
		}()
		return nil, errors.Join(ctx.Err(), errors.New("the kubeconfig's exec plugin, or the server, did not answer in time"))
	}
}
