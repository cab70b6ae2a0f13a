package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/berth-run/berth"
)

// live shows how a task stands while somebody waits: one line that is drawn
// anew on a terminal, a line for each change elsewhere.
type live struct {
	mu       sync.Mutex
	out      io.Writer
	width    func() int // nil: not a terminal
	quietRun bool       // the program writes to the same terminal: no line while it runs
	task     berth.Task
	began    time.Time
	drawn    bool
	said     string
	stop     chan struct{}
	done     chan struct{}
}

func terminalWidth(w io.Writer) func() int {
	file, ok := trusted(w).(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return func() int {
		width, _, err := term.GetSize(int(file.Fd()))
		if err != nil || width < 20 {
			return 80
		}
		return width
	}
}

// textWidth is how wide a text may be that is for reading, in columns.
func textWidth(w io.Writer) int {
	const widest = 100
	if width := terminalWidth(w); width != nil {
		return min(width(), widest)
	}
	return widest
}

func (a *app) newLive() *live {
	l := &live{out: trusted(a.stderr), width: terminalWidth(a.stderr), quietRun: terminalWidth(a.stdout) != nil, began: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	go l.tick()
	return l
}

// tick keeps the elapsed time current.
func (l *live) tick() {
	defer close(l.done)
	if l.width == nil {
		return
	}
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

// show takes in how the task stands now.
func (l *live) show(task berth.Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.task = task
	if l.width != nil {
		l.tell(task)
		l.draw()
		return
	}
	if text := describe(task); text != l.said && !task.State.Terminal() {
		l.said = text
		fmt.Fprintln(l.out, "berth: "+text)
	}
}

// tell writes a new diagnosis in full above the line that is drawn anew.
func (l *live) tell(task berth.Task) {
	text := ""
	if d := task.Diagnosis; d != nil && !task.State.Terminal() {
		text = "task " + task.ID + " waits: " + string(d.Cause) + "\n" + wrap(d.Summary, "  ", l.width()-2)
		if d.Remedy.Text != "" {
			text += "\n" + wrap("What to do ("+string(d.Remedy.By)+"): "+d.Remedy.Text, "  ", l.width()-2)
		}
	}
	if text != l.said && text != "" {
		l.clear()
		fmt.Fprintln(l.out, "berth: "+text)
	}
	l.said = text
}

// describe says in a line how a task stands.
func describe(task berth.Task) string {
	text := "task " + task.ID + " " + string(task.State)
	if task.CancelledAt != nil && !task.State.Terminal() {
		text += ", being cancelled"
	}
	if task.Attempt > 1 {
		text += fmt.Sprintf(" (attempt %d)", task.Attempt)
	}
	text += " on " + task.Infrastructure
	if task.Node != nil && task.State == berth.StateRunning {
		text += ", node " + *task.Node
	}
	for i, s := range task.Steps {
		if s.State == berth.StepRunning && task.State == berth.StateRunning {
			text += fmt.Sprintf(", step %s (%d of %d)", s.Name, i+1, len(task.Steps))
		}
	}
	switch d := task.Diagnosis; {
	case d != nil:
		text += ": " + string(d.Cause) + ": " + d.Summary
	case task.Waiting() && task.Reason != nil:
		text += ": " + *task.Reason
	}
	return oneLine(text)
}

// standing says in a line how a task stands, whose id was told before where
// something is wrong with it: what is cut off at its end is the least.
func standing(task berth.Task) string {
	if d := task.Diagnosis; d != nil {
		return oneLine(string(task.State) + ": " + string(d.Cause) + ": " + d.Summary)
	}
	return describe(task)
}

func (l *live) draw() {
	if l.task.ID == "" {
		return
	}
	l.clear()
	if l.task.State.Terminal() || l.quietRun && l.task.State == berth.StateRunning && l.task.CancelledAt == nil {
		return
	}
	text := []rune(fmt.Sprintf("%4s  %s", time.Since(l.began).Round(time.Second), standing(l.task)))
	if width := l.width() - 1; len(text) > width {
		text = append(text[:width-1], '…')
	}
	colour := "\x1b[2m"
	if l.task.Diagnosis != nil {
		colour = "\x1b[33m"
	}
	if os.Getenv("NO_COLOR") != "" {
		fmt.Fprint(l.out, string(text))
	} else {
		fmt.Fprint(l.out, colour+string(text)+"\x1b[0m")
	}
	l.drawn = true
}

func (l *live) clear() {
	if l.drawn {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.drawn = false
	}
}

// write lets something else be written without tearing the line.
func (l *live) write(w io.Writer, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	_, err := w.Write(data)
	return err
}

// say writes a line of Berth's own.
func (l *live) say(format string, args ...any) {
	_ = l.write(l.out, []byte("berth: "+oneLine(fmt.Sprintf(format, args...))+"\n"))
}

// close takes the line away.
func (l *live) close() {
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
}
