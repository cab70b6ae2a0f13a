package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// clusterLine shows how a cluster stands while somebody waits: one line that is
// drawn anew on a terminal, a line for each change elsewhere.
type clusterLine struct {
	mu     sync.Mutex
	out    io.Writer
	width  func() int // nil: not a terminal
	began  time.Time
	text   string
	said   string
	warned bool // something is wrong
	drawn  bool
	stop   chan struct{}
	closed sync.Once
}

func (a *app) newClusterLine() *clusterLine {
	l := &clusterLine{out: trusted(a.stderr), width: terminalWidth(a.stderr), began: time.Now(), stop: make(chan struct{})}
	if l.width != nil {
		go l.tick()
	}
	return l
}

// tick keeps the elapsed time current.
func (l *clusterLine) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		}
	}
}

func (l *clusterLine) show(c *berth.Cluster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = clusterStanding(c)
	d := clusterDiagnosis(c)
	l.warned = d != nil
	if l.width == nil {
		if l.text != l.said {
			l.said = l.text
			fmt.Fprintln(l.out, "berth: "+l.text)
			if d != nil && d.Remedy.Text != "" {
				fmt.Fprintln(l.out, "  What to do ("+string(d.Remedy.By)+"): "+oneLine(d.Remedy.Text))
			}
		}
		return
	}
	if d != nil && d.Summary != l.said {
		l.said = d.Summary
		l.clear()
		fmt.Fprintln(l.out, "berth: cluster "+c.Name+" waits: "+string(d.Cause)+"\n"+wrap(d.Summary, "  ", l.width()-2))
		if d.Remedy.Text != "" {
			fmt.Fprintln(l.out, wrap("What to do ("+string(d.Remedy.By)+"): "+d.Remedy.Text, "  ", l.width()-2))
		}
	}
	l.draw()
}

func (l *clusterLine) draw() {
	if l.text == "" || l.width == nil {
		return
	}
	l.clear()
	text := []rune(fmt.Sprintf("%4s  %s", time.Since(l.began).Round(time.Second), l.text))
	if width := l.width() - 1; len(text) > width {
		text = append(text[:width-1], '…')
	}
	colour := "\x1b[2m"
	if l.warned {
		colour = "\x1b[33m"
	}
	if os.Getenv("NO_COLOR") != "" {
		fmt.Fprint(l.out, string(text))
	} else {
		fmt.Fprint(l.out, colour+string(text)+"\x1b[0m")
	}
	l.drawn = true
}

func (l *clusterLine) clear() {
	if l.drawn {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.drawn = false
	}
}

// close takes the line away.
func (l *clusterLine) close() {
	l.closed.Do(func() { close(l.stop) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	l.text = ""
}
