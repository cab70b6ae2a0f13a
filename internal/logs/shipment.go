package logs

import (
	"sync"
	"time"
)

// shipment is a log on its way to where all servers read it.
type shipment struct {
	task    string
	attempt int

	mu              sync.Mutex // held while it is opened, and while it is sent
	known           bool       // parts are what the object store has
	parts           []part     // that count
	obsolete        []part
	epoch, sequence int
	fenced          bool // another server has taken the log up

	// Of the store's mutex.
	writers int
	dirty   bool
	urgent  bool
	grown   int64
	since   time.Time // when the oldest line that isn't sent was written
}

// learn takes in what parts there are.
func (sh *shipment) learn(parts []part, server string) {
	again := sh.known
	sh.known = true
	sh.parts, sh.obsolete = counting(parts)
	newest := 0
	foreign := false
	for _, p := range parts {
		if p.epoch > newest {
			newest, foreign = p.epoch, false
		}
		foreign = foreign || p.epoch == newest && p.server != server
	}
	switch {
	case again && (newest > sh.epoch || newest == sh.epoch && foreign):
		sh.fenced = true
	case !again:
		sh.epoch, sh.sequence, sh.fenced = newest+1, 0, false
	}
}

// trim notes that what is stored counts up to an offset only.
func (sh *shipment) trim(size int64) {
	for n := len(sh.parts); n > 0 && sh.parts[n-1].offset >= size && sh.parts[n-1].until > size; n-- {
		sh.obsolete = append(sh.obsolete, sh.parts[n-1])
		sh.parts = sh.parts[:n-1]
	}
	if n := len(sh.parts); n > 0 && sh.parts[n-1].until > size {
		sh.parts[n-1].until = size
	}
}
