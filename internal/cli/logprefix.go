package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/berth-run/berth"
)

// prefixes are what the lines of each task begin with.
type prefixes struct {
	coloured bool
	shown    bool // on a terminal
	width    int
	names    map[string]string // by task
	taken    map[string]bool
}

var prefixColours = []string{"36", "33", "32", "35", "34", "31"}

func newPrefixes(out io.Writer, tasks []berth.Task) *prefixes {
	p := &prefixes{names: map[string]string{}, taken: map[string]bool{}, shown: isTerminal(out)}
	p.coloured = p.shown && os.Getenv("NO_COLOR") == ""
	count := map[string]int{}
	for i := range tasks {
		if tasks[i].Name != nil {
			count[*tasks[i].Name]++
		}
	}
	for name, n := range count {
		p.taken[name] = n > 1 // which of them is meant nobody could tell
	}
	for i := range tasks {
		p.add(&tasks[i])
	}
	return p
}

// add chooses the name of a task, or its id where others have that name.
func (p *prefixes) add(task *berth.Task) {
	name := task.ID
	if task.Name != nil && !p.taken[*task.Name] {
		name = oneLine(*task.Name)
		p.taken[*task.Name] = true
	}
	p.names[task.ID] = name
	p.width = max(p.width, len([]rune(name)))
}

// line is a line, whole, behind its task. On a terminal what a carriage return
// would write over is left out.
func (p *prefixes) line(task string, text []byte, raw bool) []byte {
	text = bytes.TrimSuffix(text, []byte("\n"))
	if p.shown && !raw {
		text = bytes.TrimRight(text, "\r")
		text = text[bytes.LastIndexByte(text, '\r')+1:]
		var s sanitizer
		text = append(bytes.Clone(s.clean(text)), s.rest()...)
	}
	name := p.names[task]
	prefix := "[" + name + "] " + strings.Repeat(" ", p.width-len([]rune(name)))
	if p.coloured {
		sum := 0
		for _, r := range task {
			sum += int(r)
		}
		prefix = "\x1b[" + prefixColours[sum%len(prefixColours)] + "m" + prefix + "\x1b[0m"
	}
	return slices.Concat([]byte(prefix), text, []byte("\n"))
}

// writeLine writes a line to the stream that it is of.
func (a *app) writeLine(p *prefixes, task string, l logLine) error {
	if l.gap != "" {
		fmt.Fprintf(a.stderr, "berth: [%s] %s\n", p.names[task], oneLine(l.gap))
		return nil
	}
	to := a.stdout
	if l.stream == berth.LogStderr {
		to = a.stderr
	}
	_, err := trusted(to).Write(p.line(task, l.text, a.raw))
	return err
}
