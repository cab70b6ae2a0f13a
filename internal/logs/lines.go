package logs

import (
	"bytes"
	"io"
)

// lineReader gives a stream in batches of whole lines, so that a reader never
// sees half a line, and one write stores many. Only the end of the stream, or
// a line longer than maxLine, comes without its newline.
type lineReader struct {
	r    io.Reader
	buf  []byte
	rest []byte
	err  error
}

const (
	readSize    = 512 // at first: most logs that are followed are still
	maxReadSize = 64 << 10
	maxLine     = 1 << 20
)

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: r, buf: make([]byte, readSize)}
}

// next returns the next batch, together with the stream's error once it has
// ended. The batch is valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	for l.err == nil {
		n, err := l.r.Read(l.buf)
		l.rest = append(l.rest, l.buf[:n]...)
		if n == len(l.buf) && n < maxReadSize {
			l.buf = make([]byte, 4*n)
		}
		l.err = err
		if end := bytes.LastIndexByte(l.rest, '\n') + 1; end > 0 || len(l.rest) > maxLine {
			if end == 0 {
				end = len(l.rest)
			}
			batch := l.rest[:end:end]
			l.rest = append([]byte(nil), l.rest[end:]...)
			return batch, nil
		}
	}
	batch := l.rest
	l.rest = nil
	return batch, l.err
}
