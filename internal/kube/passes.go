package kube

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	passesLimit = 512         // shapes that are remembered
	passLife    = time.Minute // how long one is
)

// passes remembers what shapes of pods were accepted a moment ago.
type passes struct {
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
	now   func() time.Time
}

func newPasses() *passes {
	return &passes{until: map[[sha256.Size]byte]time.Time{}, now: time.Now}
}

// valid reports whether a shape was accepted a moment ago.
func (p *passes) valid(shape [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now().Before(p.until[shape])
}

// add remembers a shape. Where there are too many, the oldest makes room.
func (p *passes) add(shape [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.until[shape]; !known && len(p.until) >= passesLimit {
		var oldest [sha256.Size]byte
		var ends time.Time
		for other, until := range p.until {
			if ends.IsZero() || until.Before(ends) {
				oldest, ends = other, until
			}
		}
		delete(p.until, oldest)
	}
	p.until[shape] = p.now().Add(passLife)
}
