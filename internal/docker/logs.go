package docker

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/client"
)

// Logs opens the log of a container, each line with its time and its stream, in
// the order in which they were written.
func (d *Driver) Logs(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) {
	stream, err := d.openLog(ctx, pod, since, follow)
	if err != nil {
		return nil, d.refusal(err, "get the log of", pod)
	}
	pr, pw := io.Pipe()
	go func() {
		lines := &demultiplexer{w: pw}
		err := lines.copy(stream)
		if err == nil && follow {
			err = d.rest(ctx, pod, since, lines)
		}
		pw.CloseWithError(err)
	}()
	return &logStream{pr, stream}, nil
}

func (d *Driver) openLog(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) {
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: follow}
	if !since.IsZero() {
		options.Since = fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())
	}
	return d.client.api.ContainerLogs(ctx, pod, options)
}

// rest reads what a stream that follows leaves out at a container's end: up to
// 20.10 an Engine does not give the last line when it has no newline.
func (d *Driver) rest(ctx context.Context, pod string, since time.Time, lines *demultiplexer) error {
	if last, err := time.Parse(time.RFC3339Nano, string(lines.stamp)); err == nil {
		since = last
	}
	stream, err := d.openLog(ctx, pod, since, false)
	if err != nil {
		if missing(err) {
			return nil
		}
		return err
	}
	defer stream.Close()
	lines.again = lines.same
	return lines.copy(stream)
}

type logStream struct {
	*io.PipeReader
	source io.Closer
}

// WholeLog says that Berth's containers have one log file.
func (l *logStream) WholeLog() {}

func (l *logStream) Close() error {
	err := l.source.Close()
	_ = l.PipeReader.Close()
	return err
}
