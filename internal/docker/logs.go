package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/client"
)

// Logs opens the log of a container, each line with its time. Its lines are in
// the order in which they were written, stdout and stderr as one.
func (d *Driver) Logs(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) {
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: follow}
	if !since.IsZero() {
		options.Since = fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())
	}
	stream, err := d.client.api.ContainerLogs(ctx, pod, options)
	if err != nil {
		return nil, d.refusal(err, "get the log of", pod)
	}
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(demultiplex(pw, stream)) }()
	return &logStream{pr, stream}, nil
}

type logStream struct {
	*io.PipeReader
	source io.Closer
}

func (l *logStream) Close() error {
	err := l.source.Close()
	_ = l.PipeReader.Close()
	return err
}

// maxFrame bounds a frame: an Engine parts lines at 16 KiB.
const maxFrame = 16 << 20

// demultiplex writes the frames of an Engine's log as lines "TIME content\n".
// A frame is a line, or a part of one, which then ends without a newline; each
// has a time, and of the parts of a line only the first has it in the output.
// Where the other stream writes in between, the line goes on as another.
func demultiplex(w io.Writer, r io.Reader) error {
	var header [8]byte
	var frame []byte
	open := byte(0) // the stream, 1 or 2, whose line has not ended
	for {
		if _, err := io.ReadFull(r, header[:]); err == io.EOF { //nolint:errorlint // ReadFull gives it as it is
			return nil
		} else if err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(header[4:])
		if header[0] > 3 || size > maxFrame {
			return fmt.Errorf("the log of a container is not in the form that an Engine gives")
		}
		if uint32(cap(frame)) < size {
			frame = make([]byte, size)
		}
		frame = frame[:size]
		if _, err := io.ReadFull(r, frame); err != nil {
			return err
		}
		stream, line := header[0], frame
		if stream == 3 { // the Engine's own error
			return fmt.Errorf("the Engine can't give the log: %s", bytes.TrimSpace(frame))
		}
		switch open {
		case 0:
		case stream:
			if _, content, ok := bytes.Cut(line, []byte(" ")); ok {
				line = content
			}
		default:
			if _, err := w.Write([]byte("\n")); err != nil {
				return err
			}
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		open = stream
		if bytes.HasSuffix(line, []byte("\n")) {
			open = 0
		}
	}
}
