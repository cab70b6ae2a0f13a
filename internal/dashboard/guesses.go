package dashboard

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// guessesAtOnce wrong tokens are taken from an address, and then one more each
	// guessInterval. Nobody guesses 256 bits; each try asks the store.
	guessesAtOnce = 10
	guessInterval = 6 * time.Second
	// maxGuessers bounds how many addresses are remembered.
	maxGuessers = 4096
)

// guesses counts wrong tokens by where they come from.
type guesses struct {
	mu   sync.Mutex
	from map[netip.Prefix]*guessed
}

// guessed is how many wrong tokens count against an address, at a time.
type guessed struct {
	count float64
	at    time.Time
}

func newGuesses() *guesses { return &guesses{from: map[netip.Prefix]*guessed{}} }

// take counts a token before it is known to be wrong, as many may be tried at
// once. It reports false when no more are taken from an address for now.
func (g *guesses) take(remote string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	who, now := guesser(remote), time.Now()
	of, ok := g.from[who]
	if !ok {
		g.makeRoomLocked(now)
		of = &guessed{at: now}
		g.from[who] = of
	}
	of.forgive(now)
	if of.count+1 > guessesAtOnce {
		return false
	}
	of.count++
	return true
}

// right gives back what was taken for a token that was not wrong.
func (g *guesses) right(remote string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of, ok := g.from[guesser(remote)]; ok {
		of.count = max(0, of.count-1)
	}
}

func (g *guessed) forgive(now time.Time) {
	g.count = max(0, g.count-float64(now.Sub(g.at))/float64(guessInterval))
	g.at = now
}

// makeRoomLocked forgets those who have waited long enough, or else anybody.
func (g *guesses) makeRoomLocked(now time.Time) {
	if len(g.from) < maxGuessers {
		return
	}
	for who, of := range g.from {
		if of.forgive(now); of.count == 0 {
			delete(g.from, who)
		}
	}
	for who := range g.from { // half of them, so that this is seldom done
		if len(g.from) <= maxGuessers/2 {
			return
		}
		delete(g.from, who)
	}
}

// guesser is whom an address counts as: one host, or one network of IPv6, of which
// a host has all addresses.
func guesser(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	address, bits := address.Unmap().WithZone(""), 32
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.Prefix(bits) // of a valid address and length
	return prefix
}
