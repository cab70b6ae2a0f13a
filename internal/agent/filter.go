package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// eachLine calls fn for each line of r, its newline included. A line longer
// than a frame can be is given in pieces.
func eachLine(r io.Reader, fn func([]byte)) error {
	buffered := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := buffered.ReadSlice('\n')
		if len(line) > 0 {
			fn(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// Filter gives a log, whose lines begin with a time and a space, without the
// frames of a nonce. A step frame becomes a line "TIME!step NUMBER", which no
// program can write: its lines have a space behind the time.
func Filter(r io.ReadCloser, nonce string) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		begins := true // of a line
		err := eachLine(r, func(line []byte) {
			if out := filtered(line, nonce, begins); len(out) > 0 {
				_, _ = pw.Write(out)
			}
			begins = line[len(line)-1] == '\n'
		})
		pw.CloseWithError(err)
	}()
	return &filter{pr, r}
}

func filtered(line []byte, nonce string, begins bool) []byte {
	stamp, content, ok := bytes.Cut(line, []byte(" "))
	if !ok || !begins || len(content) == 0 || content[0] != frameMark[0] {
		return line
	}
	kind, value, ok := ParseFrame(nonce, content)
	if !ok {
		return line
	}
	if n, good := StepNumber(value); kind == FrameStep && good {
		return fmt.Appendf(nil, "%s!step %d\n", stamp, n)
	}
	return nil
}

type filter struct {
	*io.PipeReader
	source io.Closer
}

func (f *filter) Close() error {
	err := f.source.Close()
	_ = f.PipeReader.Close()
	return err
}
