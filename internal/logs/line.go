package logs

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// What is behind a line's time says what the line is.
const (
	sepUnknown = ' ' // output of a stream that nobody can tell
	sepStdout  = '>'
	sepStderr  = '^'
	sepMark    = '!' // Berth's own
)

const (
	gapMark  = "!gap "  // output is missing here
	baseMark = "!base " // the first line of a plain part: the offset of what follows
	stepMark = "step "

	streamsMark = "streams" // the first line of a log whose lines of stderr are marked
)

// line is a stored line, taken apart.
type line struct {
	stamp   []byte // empty: a line without a time
	sep     byte   // 0 without a time
	content []byte // with the newline
}

// shortest is how many bytes a time in RFC 3339 has at least, longest at most.
const (
	shortest = len("2006-01-02T15:04:05Z")
	longest  = len("2006-01-02T15:04:05.000000000+07:00")
)

// parseLine takes a line apart.
func parseLine(text []byte) line {
	if len(text) <= shortest || text[0] < '0' || text[0] > '9' || text[10] != 'T' {
		return line{content: text}
	}
	for i := shortest; i < len(text) && i <= longest; i++ {
		switch text[i] {
		case sepUnknown, sepStdout, sepStderr, sepMark:
			return line{text[:i], text[i], text[i+1:]}
		}
	}
	return line{content: text}
}

// stamped reports whether a line begins with a time.
func stamped(text []byte) bool { return parseLine(text).sep != 0 }

// stream is the stream that a line is of.
func (l *line) stream() berth.LogStream {
	switch l.sep {
	case sepStdout:
		return berth.LogStdout
	case sepStderr:
		return berth.LogStderr
	}
	return berth.LogUnknown
}

// output reports whether a line is the program's and not Berth's own.
func (l *line) output() bool {
	return l.sep != sepMark && !bytes.HasPrefix(l.content, []byte("!")) || l.sep != 0 && l.sep != sepMark
}

// step reads a line that says of which step what follows is.
func (l *line) step() (int, bool) {
	text, ok := strings.CutPrefix(string(l.content), stepMark)
	if l.sep != sepMark || !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	return n, err == nil
}

// gap reads a line that says that output is missing.
func (l *line) gap() (string, bool) {
	text, ok := bytes.CutPrefix(l.content, []byte(gapMark))
	if l.sep != 0 || !ok {
		return "", false
	}
	return strings.TrimSpace(string(text)), true
}

// parseStamp reads a time; the zero time when it is none.
func parseStamp(stamp []byte) time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}
	}
	return t
}

// displayed is a time as gaps tell it.
func displayed(t time.Time) string {
	if t.IsZero() {
		return "its beginning"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
