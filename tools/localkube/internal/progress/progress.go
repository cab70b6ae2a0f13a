// Package progress tells a person what is being done and for how long. It writes one line for each
// finished step and, for slow ones, a sign of life every few seconds; it never reads anything and
// keeps no log.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lifeSign is how long a step may go on without a word.
const lifeSign = 5 * time.Second

// Printer writes the lines of concurrent steps. Its zero value is not usable: see New.
type Printer struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	pending  bool // an unfinished line stands on the terminal
}

// New returns a printer to a file. On a terminal signs of life overwrite each other; elsewhere each is
// a line of its own, so that a log shows them.
func New(out *os.File) *Printer {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &Printer{out: out, terminal: err == nil}
}

// Line writes one line.
func (p *Printer) Line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// Step runs an action and writes one line when it has ended, with how long it took.
func (p *Printer) Step(what string, action func() error) error {
	start := time.Now()
	done := make(chan struct{})
	var silent sync.WaitGroup
	silent.Add(1)
	go func() {
		defer silent.Done()
		p.signs(what, start, done)
	}()
	err := action()
	close(done)
	silent.Wait()
	mark := "✓"
	if err != nil {
		mark = "✗"
	}
	p.Line(" %s %s (%.1fs)", mark, what, time.Since(start).Seconds())
	return err
}

func (p *Printer) signs(what string, start time.Time, done <-chan struct{}) {
	ticker := time.NewTicker(lifeSign)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			p.sign(fmt.Sprintf(" • %s ... (%ds)", what, int(time.Since(start).Seconds())))
		}
	}
}

func (p *Printer) sign(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	if !p.terminal {
		fmt.Fprintln(p.out, line)
		return
	}
	fmt.Fprint(p.out, line)
	p.pending = true
}

// clear removes a sign of life from the terminal's current line.
func (p *Printer) clear() {
	if p.pending {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.pending = false
	}
}
