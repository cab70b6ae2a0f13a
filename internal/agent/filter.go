package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// bufferSize is more than a frame's line has, and its time. Every pod that runs
// has two buffers.
const bufferSize = 8 << 10

// eachLine calls fn for each line of r, its newline included, and pause whenever
// nothing more is there at the moment. A line longer than a frame can be is
// given in pieces.
func eachLine(r io.Reader, fn func([]byte), pause func() error) error {
	buffered := bufio.NewReaderSize(r, bufferSize)
	for {
		if buffered.Buffered() == 0 {
			if err := pause(); err != nil {
				return err
			}
		}
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
// program can write: its lines have a space behind the time. The agent begins
// a new line before each frame, as it can't know whether the program ended its
// last one; where that made an empty line, it goes too.
//
// Where the agent marks the lines of stderr, they become "TIME^CONTENT" and those
// of stdout "TIME>CONTENT". That it does is the log's first line, which becomes
// "TIME!streams", each time that it comes: a log that goes on is known by lines
// that it had before. streams says that it was there.
func Filter(r io.ReadCloser, nonce string, streams bool) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		f := filterer{nonce: nonce, stderr: StderrMark(nonce), streams: streams, begins: true, out: bufio.NewWriterSize(pw, bufferSize)}
		err := eachLine(r, f.line, func() error { return f.out.Flush() })
		f.release()
		if flushErr := f.out.Flush(); err == nil {
			err = flushErr
		}
		pw.CloseWithError(err)
	}()
	return &filter{pr, r}
}

// filterer filters line by line.
type filterer struct {
	nonce   string
	stderr  []byte // mark of its lines
	streams bool   // they have it
	out     *bufio.Writer
	begins  bool   // the next piece is the beginning of a line
	empty   []byte // an empty line that is held back
}

func (f *filterer) line(line []byte) {
	begins := f.begins
	f.begins = line[len(line)-1] == '\n'
	stamp, sep, content, ok := CutLine(line)
	if !ok || !begins {
		f.release()
		_, _ = f.out.Write(line)
		return
	}
	if kind, value, frame := ParseFrame(f.nonce, content); frame {
		f.empty = f.empty[:0]
		if n, good := StepNumber(value); kind == FrameStep && good {
			fmt.Fprintf(f.out, "%s!step %d\n", stamp, n)
		} else if kind == FrameStreams {
			f.streams = true
			fmt.Fprintf(f.out, "%s!streams\n", stamp)
		}
		return
	}
	f.release()
	if rest, marked := bytes.CutPrefix(content, f.stderr); marked {
		_, _ = f.out.Write(stamp)
		_ = f.out.WriteByte('^')
		_, _ = f.out.Write(rest)
		return
	}
	if sep == ' ' && f.streams {
		line[len(stamp)] = '>'
	}
	if len(content) == 1 && content[0] == '\n' {
		f.empty = append(f.empty[:0], line...)
		return
	}
	_, _ = f.out.Write(line)
}

// release gives an empty line that was held back: no frame follows it.
func (f *filterer) release() {
	if len(f.empty) > 0 {
		_, _ = f.out.Write(f.empty)
		f.empty = f.empty[:0]
	}
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
