package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Copy appends what a log stream gives until it ends; a *StreamError says that
// it broke. The stream may begin again with lines that are stored already:
// those are left out. It may also be of another file than the one before, which
// a kubelet began meanwhile: then all of it is new, and where the stream before
// broke, a gap is noted, as nobody can have the rest of its file any more.
func (w *Writer) Copy(r io.Reader) error {
	var seam *seam // nil once all that comes is new
	if w.last.time != "" {
		seam = newSeam(w.last)
	} else if err := w.dropPartial(); err != nil {
		return err
	}
	whole := w.whole
	w.whole = false
	lines := newLineReader(r)
	for inside := false; ; { // of a line that comes in pieces
		batch, readErr := lines.next()
		if readErr != nil && !errors.Is(readErr, io.EOF) {
			return &StreamError{readErr} // what is left is half a line: it comes again
		}
		if seam == nil && !inside && allStamped(batch) {
			if err := w.write(batch); err != nil {
				return err
			}
			w.noteEnd(batch)
			w.partial = nil
			batch = nil
		}
		var out []byte
		take := func(fresh []byte, piece bool) error {
			if err := w.join(seam, whole, &fresh); err != nil {
				return err
			}
			for line := range bytes.Lines(fresh) {
				w.add(line, piece)
			}
			out = append(out, fresh...)
			return nil
		}
		for line := range bytes.Lines(batch) {
			if !inside && !stamped(line) {
				// Every line of a log has its time: this is what the kubelet has
				// to say instead of one.
				return &StreamError{fmt.Errorf("%s", bytes.TrimSpace(line))}
			}
			piece := inside
			inside = line[len(line)-1] != '\n'
			if seam == nil {
				w.add(line, piece)
				out = append(out, line...)
				continue
			}
			if err := take(seam.line(line, piece), piece); err != nil {
				return err
			}
			if seam.over {
				seam = nil
			}
		}
		if readErr != nil && seam != nil {
			if err := take(seam.rest(), false); err != nil {
				return err
			}
		}
		if len(out) > 0 {
			if err := w.write(out); err != nil {
				return err
			}
		}
		if readErr != nil {
			w.whole = true
			return nil
		}
	}
}

// add notes a line, or a piece of one, that is about to be written.
func (w *Writer) add(line []byte, piece bool) {
	ends := line[len(line)-1] == '\n'
	switch {
	case ends && !piece:
		w.note(line)
		w.partial = nil
	case ends:
		w.note(append(w.partial, line...))
		w.partial = nil
	case piece:
		w.partial = append(w.partial, line...)
	default:
		w.partial = append([]byte(nil), line...)
	}
}

// join makes the end of what is stored right once it is known what the stream
// is: the same file again, which has the last line again, or the next one.
func (w *Writer) join(s *seam, whole bool, fresh *[]byte) error {
	if s.joined || s.kind == unknown {
		return nil
	}
	s.joined = true
	switch {
	case s.kind == same:
		return w.dropPartial()
	case !whole:
		if err := w.dropPartial(); err != nil {
			return err
		}
		return w.Gap("the log was rotated while it could not be read, and may lack output here")
	case len(w.partial) > 0 && len(*fresh) > 0:
		// The runtime ends a file in the middle of a line, and begins the next
		// one with what is left of it.
		_, content := split(*fresh)
		begun := w.partial
		if err := w.dropPartial(); err != nil {
			return err
		}
		*fresh = slices.Concat(begun, content)
	}
	return nil
}

// dropPartial takes back a last line without its newline: when a stream is
// opened once more, the line comes again, and perhaps longer.
func (w *Writer) dropPartial() error {
	if len(w.partial) == 0 {
		return nil
	}
	end, err := w.file.Seek(-int64(len(w.partial)), io.SeekEnd)
	if err == nil {
		err = w.file.Truncate(end)
	}
	w.partial = nil
	return err
}

// seam finds what is new in a stream that was opened once more. It comes of
// the file that the last one came of, and then has the last stored line in it,
// or of one that was begun since, and then is all new. Times alone can't tell:
// the first lines of a new file may be older than the last of the one before,
// and stdout and stderr are not in the order of their times.
type seam struct {
	last   position // the lines to be left out are taken from it
	at     time.Time
	kind   kind
	held   []byte // while nothing is known
	skip   bool   // the line whose pieces come
	joined bool
	over   bool // all that comes now is new
}

type kind int

const (
	unknown kind = iota
	same
	other
)

// maxHeld limits what is held back: more than a second of output.
const maxHeld = 64 << 20

func newSeam(last position) *seam {
	s := &seam{last: position{time: last.time, lines: map[string]int{}}}
	for content, n := range last.lines {
		s.last.lines[content] = n
	}
	s.at, _ = time.Parse(time.RFC3339Nano, last.time)
	return s
}

// line takes a line, or a piece of one, and returns what is new now.
func (s *seam) line(line []byte, piece bool) []byte {
	if piece {
		switch {
		case s.skip:
			return nil
		case s.kind == unknown:
			s.held = append(s.held, line...)
			return nil
		}
		return line
	}
	stamp, content := split(line)
	s.skip = false
	if stored, ok := s.stored(stamp, content); ok {
		s.last.lines[stored]--
		s.kind, s.held, s.skip = same, nil, true
		return nil
	}
	if s.kind == same {
		s.over = stamp != s.last.time
		return line
	}
	at, err := time.Parse(time.RFC3339Nano, stamp)
	// Asked for from the last line's second on, the same file begins with it.
	if err == nil && (len(s.held) == 0 && at.After(s.at) || at.After(s.at.Add(time.Second))) || len(s.held) > maxHeld {
		s.over = true
		return append(s.rest(), line...)
	}
	s.held = append(s.held, line...)
	return nil
}

// stored finds a line, or the first piece of one, among the last that are stored.
func (s *seam) stored(stamp string, content []byte) (string, bool) {
	if stamp != s.last.time {
		return "", false
	}
	if bytes.HasSuffix(content, []byte("\n")) {
		return string(content), s.last.lines[string(content)] > 0
	}
	for line, n := range s.last.lines {
		if n > 0 && strings.HasPrefix(line, string(content)) {
			return line, true
		}
	}
	return "", false
}

// rest is what is new where the stream has ended.
func (s *seam) rest() []byte {
	held := s.held
	if s.kind == unknown && len(held) > 0 || s.over {
		s.kind = other
	}
	s.held = nil
	return held
}

// allStamped reports whether a batch is of whole lines, one at least, that
// each begin with a time.
func allStamped(batch []byte) bool {
	if len(batch) == 0 || batch[len(batch)-1] != '\n' {
		return false
	}
	for line := range bytes.Lines(batch) {
		if !stamped(line) {
			return false
		}
	}
	return true
}

// noteEnd notes the lines of a batch that have the time of its last one.
func (w *Writer) noteEnd(batch []byte) {
	start := len(batch)
	var last []byte
	for start > 0 {
		at := bytes.LastIndexByte(batch[:start-1], '\n') + 1
		line := batch[at:start]
		stamp := line[:bytes.IndexAny(line, " !")]
		if last == nil {
			last = stamp
		} else if !bytes.Equal(stamp, last) {
			break
		}
		start = at
	}
	for line := range bytes.Lines(batch[start:]) {
		w.note(line)
	}
}
