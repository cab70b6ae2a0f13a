package dashboard

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// recheckInterval is how long who a token is stays known: as long may a revoked
// one still show a dashboard.
const recheckInterval = 30 * time.Second

// callers knows who the sessions of the moment are of.
type callers struct {
	authenticate func(context.Context, string) (berth.Caller, error)

	mu    sync.Mutex
	known map[[sha256.Size]byte]checked   // by the digest of the token
	ended map[[sha256.Size]byte]time.Time // sessions that were logged out, until they expire
	swept time.Time
}

type checked struct {
	caller berth.Caller
	at     time.Time
}

func newCallers(authenticate func(context.Context, string) (berth.Caller, error)) *callers {
	return &callers{authenticate: authenticate, known: map[[sha256.Size]byte]checked{}, ended: map[[sha256.Size]byte]time.Time{}}
}

// of returns whose a session is. CodeUnauthorized when it is over; any other error
// says that this can't be told now.
func (c *callers) of(ctx context.Context, s session) (berth.Caller, error) {
	now, key := time.Now(), sha256.Sum256([]byte(s.token))
	if !now.Before(s.expires) || c.hasEnded(s) {
		return berth.Caller{}, berth.Errorf(berth.CodeUnauthorized, "the login is over")
	}
	c.mu.Lock()
	known, ok := c.known[key]
	c.mu.Unlock()
	if ok && now.Sub(known.at) < recheckInterval {
		return known.caller, nil
	}
	caller, err := c.authenticate(ctx, s.token.Reveal())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweepLocked(now)
	if err != nil {
		delete(c.known, key)
		return berth.Caller{}, err
	}
	c.known[key] = checked{caller, now} // as it was when it was asked for
	return caller, nil
}

// whileGood returns a context that ends with the session, and what to call when
// the request is over.
func (c *callers) whileGood(ctx context.Context, s session) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			next := time.NewTimer(min(recheckInterval, time.Until(s.expires)))
			select {
			case <-ctx.Done():
				next.Stop()
				return
			case <-next.C:
			}
			if _, err := c.of(ctx, s); berth.CodeOf(err) == berth.CodeUnauthorized {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// end ends a session before its time, on this server: another one of the same
// store still takes its cookie from who kept a copy. Revoking the token ends it
// everywhere.
func (c *callers) end(s session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweepLocked(time.Now())
	c.ended[s.id] = s.expires
}

func (c *callers) hasEnded(s session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ended := c.ended[s.id]
	return ended
}

// sweepLocked forgets what makes no difference any more.
func (c *callers) sweepLocked(now time.Time) {
	if now.Sub(c.swept) < recheckInterval {
		return
	}
	c.swept = now
	for key, known := range c.known {
		if now.Sub(known.at) >= recheckInterval {
			delete(c.known, key)
		}
	}
	for id, expires := range c.ended {
		if !now.Before(expires) {
			delete(c.ended, id)
		}
	}
}
