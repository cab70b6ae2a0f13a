package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// transfer tells on stderr how far a copy is: on a terminal while it lasts, and
// at its end.
type transfer struct {
	to    io.Writer
	verb  string
	what  string
	total int64 // in bytes; 0: not known
	live  bool

	mu    sync.Mutex
	began time.Time
	shown time.Time
	bytes int64
	drawn bool
}

func (a *app) newTransfer(verb, what string, total int64) *transfer {
	return &transfer{to: trusted(a.stderr), verb: verb, what: what, total: total, live: isTerminal(a.stderr), began: time.Now()}
}

// again begins from nothing.
func (t *transfer) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes, t.began = 0, time.Now()
}

func (t *transfer) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes += int64(n)
	if now := time.Now(); t.live && now.Sub(t.shown) > 200*time.Millisecond {
		t.shown, t.drawn = now, true
		share := ""
		if t.total > 0 {
			share = fmt.Sprintf(" of %s (%d %%)", size(t.total), min(100, t.bytes*100/t.total))
		}
		fmt.Fprintf(t.to, "\r\x1b[K%s: %s%s, %s", oneLine(t.what), size(t.bytes), share, t.speed())
	}
}

func (t *transfer) speed() string {
	seconds := max(time.Since(t.began).Seconds(), 0.001)
	return fmt.Sprintf("%.1f MB/s", float64(t.bytes)/1e6/seconds)
}

// close takes the line of the progress away.
func (t *transfer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drawn {
		fmt.Fprint(t.to, "\r\x1b[K")
		t.drawn = false
	}
}

// done says what was copied.
func (t *transfer) done(skipped int) {
	t.close()
	left := ""
	if skipped > 0 {
		left = fmt.Sprintf("; %d pipes, sockets or devices were left out", skipped)
	}
	fmt.Fprintf(t.to, "berth: %s %s, %s, %s%s\n", t.verb, oneLine(t.what), size(t.bytes), t.speed(), left)
}
