package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/berth-run/berth"
)

// runView shows a run while somebody waits: on a terminal its calls as a tree
// that is drawn anew, elsewhere a line for each that has ended or stands still.
type runView struct {
	mu     sync.Mutex
	out    io.Writer
	width  func() int // nil: not a terminal
	height func() int
	now    berth.Run
	calls  map[string]berth.RunCall
	said   map[string]string
	drawn  int // lines
	stop   chan struct{}
	done   chan struct{}
	closed bool
}

func (a *app) newRunView(run berth.Run) *runView {
	v := &runView{
		out: trusted(a.stderr), width: terminalWidth(a.stderr), height: terminalHeight(a.stderr), now: run,
		calls: map[string]berth.RunCall{}, said: map[string]string{}, stop: make(chan struct{}), done: make(chan struct{}),
	}
	if v.width == nil {
		fmt.Fprintf(v.out, "berth: run %s of %s\n", run.ID, oneLine(run.Workflow))
	}
	go v.tick()
	return v
}

func terminalHeight(w io.Writer) func() int {
	file, ok := trusted(w).(*os.File)
	if !ok {
		return nil
	}
	return func() int {
		_, height, err := term.GetSize(int(file.Fd()))
		if err != nil || height < 5 {
			return 24
		}
		return height
	}
}

// tick draws what has changed, a few times a second: thousands of calls change
// more often.
func (v *runView) tick() {
	defer close(v.done)
	if v.width == nil {
		return
	}
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-v.stop:
			return
		case <-t.C:
			v.mu.Lock()
			v.draw()
			v.mu.Unlock()
		}
	}
}

func (v *runView) run(run berth.Run) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now = run
	if v.width == nil && run.Reason != nil && !run.State.Terminal() && v.said[""] != *run.Reason {
		v.said[""] = *run.Reason
		fmt.Fprintln(v.out, "berth: "+oneLine(*run.Reason))
	}
}

func (v *runView) call(c berth.RunCall) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, known := v.calls[c.Key]
	v.calls[c.Key] = c
	if c.State == berth.CallPrinted {
		if c.Label != nil && (!known || *before.Label != *c.Label) {
			v.clear()
			fmt.Fprintln(v.out, clean(*c.Label))
		}
		return
	}
	if v.width != nil {
		return
	}
	text := ""
	switch {
	case c.State.Ended():
		text = callName(&c) + " " + callStanding(&c)
	case c.Cause != nil && c.Reason != nil:
		text = callName(&c) + " waits: " + string(*c.Cause) + ": " + oneLine(*c.Reason)
	}
	if text != "" && v.said[c.Key] != text {
		v.said[c.Key] = text
		fmt.Fprintln(v.out, "berth: "+text)
	}
}

// say writes a line of Berth's own.
func (v *runView) say(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintln(v.out, "berth: "+oneLine(text))
}

func (v *runView) clear() {
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\r\x1b[J", v.drawn)
		v.drawn = 0
	}
}

func (v *runView) draw() {
	lines := runTree(&v.now, v.list(), os.Getenv("NO_COLOR") == "")
	if most := v.height() - 2; len(lines) > most {
		left := len(lines) - most + 1
		lines = append(lines[:1:1], lines[1+left:]...) // the newest are below
		lines = slices.Insert(lines, 1, fmt.Sprintf("  … %d lines more: berth workflow get %s", left, v.now.ID))
	}
	v.clear()
	var out strings.Builder
	for _, line := range lines {
		out.WriteString(cutLine(line, v.width()-1) + "\n")
	}
	fmt.Fprint(v.out, out.String())
	v.drawn = len(lines)
}

func (v *runView) list() []berth.RunCall {
	calls := make([]berth.RunCall, 0, len(v.calls))
	for _, c := range v.calls {
		calls = append(calls, c)
	}
	slices.SortFunc(calls, func(a, b berth.RunCall) int { return cmp.Compare(a.Seq, b.Seq) })
	return calls
}

// close leaves the tree as it is at the end.
func (v *runView) close() {
	if v.closed {
		return
	}
	v.closed = true
	close(v.stop)
	<-v.done
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.width != nil {
		v.draw()
		v.drawn = 0
	}
}

// cutLine cuts a line to a width, colours not counted.
func cutLine(line string, width int) string {
	n := 0
	escape := false
	for i, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if n++; n > width {
				return line[:i] + "\x1b[0m"
			}
		}
	}
	return line
}
