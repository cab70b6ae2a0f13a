package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc"
)

const (
	patience  = 30 * time.Second // with a server that is away
	telling   = time.Second      // how long it may be away before it is told
	probeLong = 5 * time.Second  // how long one that takes connections may take to answer
)

// remote is a server elsewhere, whoever runs it at the moment.
type remote struct {
	*rpc.Resuming
	address string
	client  *rpc.Client
	tell    func(reason string)

	mu   sync.Mutex
	told time.Time
}

func newRemote(address string, client *rpc.Client, d dialing) *remote {
	r := &remote{address: address, client: client, tell: d.waiting}
	if r.tell == nil {
		r.tell = func(string) {}
	}
	r.Resuming = rpc.NewResuming(r.join, patience)
	return r
}

// join waits until a server that is gone is there again. It is always the same
// client: where a server is reached doesn't change with who runs it.
func (r *remote) join(ctx context.Context, gone berth.Service) (berth.Service, error) {
	if gone == nil {
		return r.client, nil
	}
	began := time.Now()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		probe, cancel := context.WithTimeout(ctx, probeLong)
		_, err := r.client.Info(probe)
		cancel()
		switch {
		case err == nil:
			return r.client, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, rpc.ErrGone) && !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		}
		away := time.Since(began)
		reason := strings.TrimPrefix(err.Error(), rpc.ErrGone.Error()+": ")
		if away > patience {
			return nil, berth.Errorf(berth.CodeUnavailable, "the server %s does not answer, and was waited for for %s: %s", r.address, patience, reason)
		}
		if away > telling {
			r.waiting(reason)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// waiting tells, once a while for all calls together.
func (r *remote) waiting(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.told) > patience {
		r.told = time.Now()
		r.tell(reason)
	}
}

// RoundTrip reaches the server's registry: a remote is the transport of
// images.Local.
func (r *remote) RoundTrip(request *http.Request) (*http.Response, error) {
	return r.client.RoundTrip(request)
}

// Close lets go of the connections.
func (r *remote) Close() error { return r.client.Close() }
