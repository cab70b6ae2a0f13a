package let

import (
	"bytes"
	"fmt"
	"io"

	"github.com/berth-run/berth"
)

// MaxCaptured bounds what is kept of a program's output, in bytes.
const MaxCaptured = 4 << 20

// errTooLarge tells a result that isn't kept from a log that can't be written.
var errTooLarge = fmt.Errorf("the program's result is larger than %d MiB; large data belong into files", MaxCaptured>>20)

// How a program marks its result in its output.
const (
	markStart = "--> START CAPTURE"
	markEnd   = "--> END CAPTURE"
	prefix    = "~~>"
)

// maxPending bounds what is held back of a line whose end hasn't come.
const maxPending = 64 << 10

// Capture splits what a program writes to stdout: its result is kept, the rest
// goes to a log, a whole line at a time. It is for one goroutine.
type Capture struct {
	mode     berth.Capture
	log      io.Writer
	kept     bytes.Buffer
	pending  []byte // of a line
	begun    bool   // the line's beginning is through already; its rest goes the same way
	keeping  bool   // where the line goes
	marked   bool   // between the marks
	finished bool   // the end mark was there
	err      error
}

// NewCapture makes a Capture for a function's output. Where the function
// declares no outputs there is nothing to keep: all of it goes to the log.
func NewCapture(fn *berth.Function, log io.Writer) *Capture {
	mode := fn.Capture
	if len(fn.Outputs) == 0 {
		mode = ""
	} else if mode == "" {
		mode = berth.CaptureComplete
	}
	return &Capture{mode: mode, log: log}
}

// Write takes in a piece of output. An error stays: the result is larger than
// MaxCaptured, or the log can't be written; the program is of no use any more.
func (c *Capture) Write(p []byte) (int, error) {
	for at := 0; at < len(p) && c.err == nil; {
		if c.mode == berth.CaptureComplete {
			c.keep(p[at:])
			break
		}
		end := bytes.IndexByte(p[at:], '\n')
		if end < 0 {
			c.pending = append(c.pending, p[at:]...)
			if len(c.pending) > maxPending {
				c.flush(false)
			}
			break
		}
		c.pending = append(c.pending, p[at:at+end]...)
		c.flush(true)
		at += end + 1
	}
	if c.err != nil {
		return 0, c.err
	}
	return len(p), nil
}

// Close takes in the last line, which may lack its end.
func (c *Capture) Close() error {
	if c.err == nil && (len(c.pending) > 0 || c.begun) {
		c.flush(true)
	}
	return c.err
}

// Captured is what was kept. It is for Decode, after Close.
func (c *Capture) Captured() []byte { return c.kept.Bytes() }

// flush sends on what is pending: the end of a line, or so much of it that
// its beginning has told where it goes.
func (c *Capture) flush(end bool) {
	line := c.pending
	c.pending = c.pending[:0]
	if !c.begun {
		var drop bool
		if line, drop = c.begin(line); drop {
			if !end { // what follows on a mark's line is the log's
				c.begun, c.keeping = true, false
			}
			return
		}
	}
	c.begun = !end
	if c.keeping {
		if end {
			line = append(bytes.TrimSuffix(line, []byte("\r")), '\n')
		}
		c.keep(line)
		return
	}
	if end {
		line = append(line, '\n')
	}
	if len(line) > 0 && c.log != nil {
		if _, err := c.log.Write(line); err != nil {
			c.err = fmt.Errorf("writing the log: %w", err)
		}
	}
}

// begin looks at a line's beginning, decides where the line goes and takes the
// prefix off. Marks go nowhere.
func (c *Capture) begin(line []byte) (rest []byte, drop bool) {
	c.keeping = false
	switch c.mode {
	case berth.CapturePrefixed:
		for bytes.HasPrefix(line, []byte(prefix)) {
			line = line[len(prefix):]
			c.keeping = true
		}
	case berth.CaptureMarked:
		text := bytes.TrimLeft(line, " \t\r\v\f")
		switch {
		case c.finished:
		case bytes.HasPrefix(text, []byte(markStart)):
			c.marked = true
			return nil, true
		case c.marked && bytes.HasPrefix(text, []byte(markEnd)):
			c.marked, c.finished = false, true
			return nil, true
		default:
			c.keeping = c.marked
		}
	}
	return line, false
}

func (c *Capture) keep(p []byte) {
	if c.kept.Len()+len(p) > MaxCaptured {
		c.err = errTooLarge
		return
	}
	c.kept.Write(p)
}
