package cli

import (
	"io"
	"os"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// sanitizer takes out of a stream of text what would steer a terminal: escape
// sequences, C1 controls as UTF-8 and as bytes, and all other control characters
// but for newlines, tabs and carriage returns, which progress bars are made of.
// Nothing that comes in pieces is let through by that. A sequence that has no
// end ends with its line, so that it hides no more than that.
type sanitizer struct {
	state sanitizerState
	held  []byte // the beginning of a character
	out   []byte
}

type sanitizerState int

const (
	inText         sanitizerState = iota
	inEscape                      // behind ESC
	inControl                     // CSI: up to a final byte
	inString                      // OSC, DCS, SOS, PM, APC: up to ST or BEL
	inStringEscape                // behind an ESC within
)

const escape = 0x1b

// clean returns what is left of a piece of text, valid until the next call.
func (s *sanitizer) clean(data []byte) []byte {
	if len(s.held) > 0 {
		data = append(s.held, data...)
		s.held = nil
	}
	s.out = s.out[:0]
	for len(data) > 0 {
		if data[0] < utf8.RuneSelf {
			s.take(rune(data[0]), data[:1])
			data = data[1:]
			continue
		}
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			if !utf8.FullRune(data) {
				s.held = append([]byte(nil), data...)
				break
			}
			if r = rune(data[0]); r > 0x9f { // no character, and no control of an 8 bit terminal either
				r = utf8.RuneError
			}
		}
		s.take(r, data[:size])
		data = data[size:]
	}
	return s.out
}

// rest is what is left at the end: a character that was cut.
func (s *sanitizer) rest() []byte {
	if len(s.held) == 0 || s.state != inText {
		return nil
	}
	s.held = nil
	return []byte(string(utf8.RuneError))
}

func (s *sanitizer) take(r rune, text []byte) {
	switch {
	case r == '\n':
		s.state = inText
	case r == escape:
		if s.state == inString {
			s.state = inStringEscape
		} else {
			s.state = inEscape
		}
		return
	case s.state == inString || s.state == inStringEscape:
		if r == 0x07 || r == 0x9c || s.state == inStringEscape && r == '\\' {
			s.state = inText
		} else if s.state == inStringEscape {
			s.state = inEscape // the string was broken off by another sequence
			s.take(r, text)
		}
		return
	case r >= 0x80 && r <= 0x9f:
		s.begin(r)
		return
	case s.state == inEscape:
		switch {
		case r >= 0x20 && r <= 0x2f: // an intermediate
		case r >= 0x40 && r <= 0x5f:
			s.begin(r + 0x40)
		default:
			s.state = inText
		}
		return
	case s.state == inControl:
		if r < 0x20 || r > 0x3f {
			s.state = inText
		}
		return
	case r < 0x20 && r != '\t' && r != '\r' || r == 0x7f:
		return
	}
	if r == utf8.RuneError {
		text = []byte(string(utf8.RuneError))
	}
	s.out = append(s.out, text...)
}

// begin takes in a C1 control.
func (s *sanitizer) begin(r rune) {
	switch r {
	case 0x9b:
		s.state = inControl
	case 0x90, 0x98, 0x9d, 0x9e, 0x9f:
		s.state = inString
	default:
		s.state = inText
	}
}

// guard is a stream of ours. On a terminal all that is written to it is
// sanitized, whoever made it; a file or pipe gets every byte as it is.
type guard struct {
	io.Writer
	raw *bool // the user wants it as it is

	mu        sync.Mutex
	sanitizer sanitizer
}

func (g *guard) Write(p []byte) (int, error) {
	if *g.raw || !isTerminal(g.Writer) {
		return g.Writer.Write(p)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.Writer.Write(g.sanitizer.clean(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// trusted is what is below a guard, for what Berth itself draws.
func trusted(w io.Writer) io.Writer {
	if g, ok := w.(*guard); ok {
		return g.Writer
	}
	return w
}

// isTerminal reports whether a stream is shown to somebody. Tests have terminals
// of their own.
var isTerminal = func(w io.Writer) bool {
	file, ok := trusted(w).(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
