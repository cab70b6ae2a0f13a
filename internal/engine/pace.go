package engine

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many creates may be under way at once: more while the API server answers
// quickly, fewer when it is slow or says that it has too much to do. With their
// latency that is the rate of creation, and it adapts to servers of any size.
const (
	paceStart = 32
	paceMax   = 64
	paceFast  = 500 * time.Millisecond // more may be sent
	paceSlow  = time.Second            // fewer are: Kubernetes' own objective for calls that change something
	paceCut   = 0.7                    // of the limit is left then
	paceRest  = time.Second            // between two cuts: answers to what was sent before the first say nothing new
)

// pace bounds the creates of one infrastructure. It is safe for concurrent use.
type pace struct {
	mu      sync.Mutex
	allowed float64
	cutAt   time.Time
	limiter *rate.Limiter // max_creates_per_second
}

func newPace() *pace { return &pace{allowed: paceStart, limiter: rate.NewLimiter(rate.Inf, 1)} }

// perSecond bounds the rate besides; 0 doesn't.
func (p *pace) perSecond(limit float64) {
	if limit <= 0 {
		p.limiter.SetLimit(rate.Inf)
		return
	}
	p.limiter.SetLimit(rate.Limit(limit))
	p.limiter.SetBurst(max(1, int(limit)))
}

// limit is how many creates may be under way.
func (p *pace) limit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.allowed)
}

// delay is how long the next create has to wait for max_creates_per_second.
func (p *pace) delay(now time.Time) time.Duration {
	reservation := p.limiter.ReserveN(now, 1)
	defer reservation.CancelAt(now)
	return reservation.DelayFrom(now)
}

// took counts a create.
func (p *pace) took(now time.Time) { p.limiter.AllowN(now, 1) }

// answered takes in how long the API server took for a create, and whether it
// was too much for it.
func (p *pace) answered(took time.Duration, overloaded bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case overloaded || took > paceSlow:
		if now.Sub(p.cutAt) < paceRest {
			return
		}
		p.cutAt, p.allowed = now, max(1, p.allowed*paceCut)
	case took < paceFast:
		p.allowed = min(paceMax, p.allowed+1/p.allowed)
	}
}
