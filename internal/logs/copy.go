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
// Rotates says that the stream may go over from one file to another.
func (w *Writer) Copy(r io.Reader, rotates bool) error {
	var seam *seam // nil once all that comes is new
	w.pace.opened = w.pace.clock()
	w.repeats.opened()
	if w.last.time != "" {
		seam = newSeam(w.last)
	} else if err := w.dropPartial(); err != nil {
		return err
	}
	whole := w.whole
	w.whole = false
	came := false
	lines := newLineReader(r)
	for inside := false; ; { // of a line that comes in pieces
		batch, readErr := lines.next()
		if readErr != nil && !errors.Is(readErr, io.EOF) {
			return &StreamError{readErr} // what is left is half a line: it comes again
		}
		came = came || len(batch) > 0
		w.pace.read += int64(len(batch))
		mayRotate := rotates && w.pace.read >= rotatable
		if seam == nil && !inside && allStamped(batch) {
			if mayRotate {
				batch = w.repeats.fresh(batch)
			}
			if err := w.writeBatch(batch, rotates); err != nil {
				return err
			}
			batch = nil
		}
		var out []byte
		take := func(fresh []byte, piece bool) error {
			if err := w.join(seam, whole, &fresh); err != nil {
				return err
			}
			for line := range bytes.Lines(fresh) {
				if w.add(line, piece); mayRotate && !piece {
					w.repeats.note(line)
				}
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
			w.pace.arrived = w.pace.clock()
		}
		if err := w.sealFull(); err != nil {
			return err
		}
		if readErr != nil {
			w.ended(seam, whole, came)
			return nil
		}
	}
}

// writeBatch writes whole lines, with a gap where a file may have been left out
// between two of them.
func (w *Writer) writeBatch(batch []byte, rotates bool) error {
	if len(batch) == 0 { // all of it came before
		return nil
	}
	arrived, now := w.pace.arrived, w.pace.clock()
	last := lastStamp(batch)
	if rotates && w.pace.read >= rotatable && w.last.time != "" {
		from := w.Last()
		if last.Sub(from) >= shortCycle {
			for at, next := 0, 0; next < len(batch); {
				end := next + bytes.IndexByte(batch[next:], '\n') + 1
				l := parseLine(batch[next:end])
				to := parseStamp(l.stamp)
				if w.pace.skipped(from, to, arrived, now) {
					if err := w.writeLines(batch[at:next]); err != nil {
						return err
					}
					if err := w.Gap(rotatedGap(from, to)); err != nil {
						return err
					}
					at = next
				}
				if next = end; next == len(batch) {
					batch = batch[at:]
					break
				}
				from, arrived = to, now
			}
		}
	}
	w.pace.arrived = now
	w.pace.took(last, now)
	return w.writeLines(batch)
}

func (w *Writer) writeLines(batch []byte) error {
	if len(batch) == 0 {
		return nil
	}
	if err := w.write(batch); err != nil {
		return err
	}
	w.noteEnd(batch)
	w.partial = nil
	return nil
}

// lastStamp is the time of a batch's last line.
func lastStamp(batch []byte) time.Time {
	l := parseLine(batch[bytes.LastIndexByte(batch[:len(batch)-1], '\n')+1:])
	return parseStamp(l.stamp)
}

func rotatedGap(from, to time.Time) string {
	return fmt.Sprintf("output between %s and %s may be missing: the log was rotated before it could be read", displayed(from), displayed(to))
}

// ended takes in that a stream is over. One that had nothing at all, not even
// the last line that is stored, was of a newer file: what is left of the file
// before is missing, if there was more of it.
func (w *Writer) ended(seam *seam, whole, came bool) {
	w.whole = true
	if seam == nil || came {
		w.unjoined = false
		return
	}
	last := w.Last()
	w.whole = whole
	w.unjoined = !whole || w.pace.behind(last, w.pace.arrived, w.pace.arrived) || w.pace.endedIn(last)
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
	case !whole || w.pace.parted(w.Last(), s.first):
		if err := w.dropPartial(); err != nil {
			return err
		}
		return w.Gap(rotatedGap(w.Last(), s.first))
	case len(w.partial) > 0 && len(*fresh) > 0:
		// The runtime ends a file in the middle of a line, and begins the next
		// one with what is left of it.
		l := parseLine(*fresh)
		begun := w.partial
		if err := w.dropPartial(); err != nil {
			return err
		}
		*fresh = slices.Concat(begun, l.content)
	}
	return nil
}

// dropPartial takes back a last line without its newline: when a stream is
// opened once more, the line comes again, and perhaps longer.
func (w *Writer) dropPartial() error {
	if len(w.partial) == 0 {
		return nil
	}
	w.size -= int64(len(w.partial))
	w.partial = nil
	return w.plain.truncate(w.size)
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
	first  time.Time // of the stream's first line
	held   []byte    // while nothing is known
	skip   bool      // the line whose pieces come
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
	parsed := parseLine(line)
	stamp, content := string(parsed.stamp), parsed.content
	s.skip = false
	if s.first.IsZero() {
		s.first = parseStamp(parsed.stamp)
	}
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
		stamp := parseLine(batch[at:start]).stamp
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
