package control

import (
	"context"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// sessions are the requests under way with each token: they end with it.
type sessions struct {
	mu     sync.Mutex
	ending map[string]*session // by the token's id
	ended  map[string]bool     // ids that were revoked: a request may have been let in just before
}

type session struct {
	revoked  chan struct{} // closed when the token is
	requests int
}

// begin returns a context that ends when the token is revoked or expires, and
// what to call when the request is over.
func (s *sessions) begin(ctx context.Context, t berth.Token) (context.Context, func()) {
	s.mu.Lock()
	if s.ending == nil {
		s.ending = map[string]*session{}
	}
	mine := s.ending[t.ID]
	if mine == nil {
		mine = &session{revoked: make(chan struct{})}
		s.ending[t.ID] = mine
	}
	mine.requests++
	if s.ended[t.ID] {
		s.endLocked(t.ID)
	}
	s.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	var expired <-chan time.Time
	var timer *time.Timer
	if t.ExpiresAt != nil {
		timer = time.NewTimer(time.Until(*t.ExpiresAt))
		expired = timer.C
	}
	go func() {
		select {
		case <-mine.revoked:
			cancel(berth.Errorf(berth.CodeUnauthorized, "the token of %s was revoked", t.Name))
		case <-expired:
			cancel(berth.Errorf(berth.CodeUnauthorized, "the token of %s has expired", t.Name))
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
	}()
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		if mine.requests--; mine.requests == 0 && s.ending[t.ID] == mine {
			delete(s.ending, t.ID)
		}
	}
}

// end ends the requests under way with tokens that were revoked.
func (s *sessions) end(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = map[string]bool{}
	}
	for _, id := range ids {
		s.ended[id] = true
		s.endLocked(id)
	}
}

func (s *sessions) endLocked(id string) {
	if mine := s.ending[id]; mine != nil {
		close(mine.revoked)
		delete(s.ending, id)
	}
}
