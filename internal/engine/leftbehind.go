package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// A kubelet that follows a log looks out for new files from the moment on at
// which it has given all of the first one. Where a file was begun before that, as
// the reader was behind, it stays at the end of the old one, until one more is
// begun: then it goes on with that, and nobody had the one between (ReadLogs of
// cri-client 1.36). So where a stream that brought enough for that brings
// nothing, the newest file is asked for whether it has something else.
const (
	nothingComes      = 500 * time.Millisecond  // before the first time it is asked
	nothingComesMost  = 30 * time.Second        // before each other one
	nothingComesStill = 1500 * time.Millisecond // from the answer that it has to the end of the stream, which may only have been slow
)

// errLeftBehind says that a stream is at the end of a file that isn't the newest.
var errLeftBehind = errors.New("the log goes on in another file")

// rotating is a stream that ends where its kubelet would stay in an old file.
type rotating struct {
	io.ReadCloser
	goesOn func(last time.Time) (newFile, sameFile bool) // asks what the newest file has
	cancel func()                                        // ends the stream

	mu      sync.Mutex
	timer   *time.Timer
	wait    time.Duration // before it is asked the next time
	brought int64         // since it was last known to be in the newest file
	behind  int           // reads that had returned when the newest file was another one
	reads   int           // that returned
	line    []byte
	inside  bool // of a line: its beginning is in line
	left    bool
}

func newRotating(stream io.ReadCloser, goesOn func(time.Time) (bool, bool), cancel func()) *rotating {
	return &rotating{ReadCloser: stream, goesOn: goesOn, cancel: cancel, wait: nothingComes, behind: -1}
}

func (r *rotating) Read(p []byte) (int, error) {
	r.mu.Lock()
	if r.brought >= rotatable { // a timer for those alone: there may be thousands of streams
		reads := r.reads
		r.timer = time.AfterFunc(r.wait, func() { r.ask(reads) })
	}
	r.mu.Unlock()
	n, err := r.ReadCloser.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.brought += int64(n)
	r.note(p[:n])
	if n > 0 {
		r.left = false
	} else if err != nil && r.left {
		err = io.EOF
	}
	return n, err
}

// leftBehind reports whether the stream ended as it was left behind.
func (r *rotating) leftBehind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

// ask asks whether the log goes on elsewhere while a read has nothing.
func (r *rotating) ask(reads int) {
	r.mu.Lock()
	last, ok := r.last()
	r.mu.Unlock()
	newFile, sameFile := false, false
	if ok {
		newFile, sameFile = r.goesOn(last)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = min(2*r.wait, nothingComesMost)
	switch {
	case sameFile:
		r.brought, r.wait = 0, nothingComes
	case r.reads != reads: // so it was not at its end; and the answer may have cost the node much
	case newFile && r.behind == reads:
		r.left = true
		r.cancel()
	case newFile:
		r.behind = reads
		r.timer.Reset(nothingComesStill)
	default: // an empty file, or nobody answered
		r.timer.Reset(r.wait)
	}
}

// stampSize is what a line's time takes, at most.
const stampSize = len(time.RFC3339Nano) + 1

// note keeps the beginning of the last line that came.
func (r *rotating) note(data []byte) {
	if len(data) == 0 {
		return
	}
	if i := bytes.LastIndexByte(data[:len(data)-1], '\n'); i >= 0 || !r.inside {
		r.line = append(r.line[:0], data[i+1:min(len(data), i+1+stampSize)]...)
	} else if room := stampSize - len(r.line); room > 0 {
		r.line = append(r.line, data[:min(room, len(data))]...)
	}
	r.inside = data[len(data)-1] != '\n'
}

func (r *rotating) last() (time.Time, bool) { return stampOf(r.line) }

func stampOf(line []byte) (time.Time, bool) {
	stamp, _, _ := bytes.Cut(line, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	return at, err == nil
}

// newestFile asks what the newest file of a pod's log has from the second of a
// line on: other lines without that one, which is then of a file before; or that one.
func (l *loop) newestFile(ctx context.Context, driver Driver, pod string, last time.Time) (newFile, sameFile bool) {
	select {
	case l.logSlots <- struct{}{}:
		defer func() { <-l.logSlots }()
	case <-ctx.Done():
		return false, false
	}
	stream, err := driver.Logs(ctx, pod, last, false)
	if err != nil {
		return false, false
	}
	defer stream.Close()
	lines := bufio.NewReader(stream)
	for first, inside := true, false; ; {
		line, err := lines.ReadSlice('\n')
		if at, ok := stampOf(line); ok && !inside {
			switch {
			case at.Equal(last):
				return false, true
			case first && at.After(last), at.After(last.Add(time.Second)):
				return true, false
			}
			first = false
		}
		if inside = errors.Is(err, bufio.ErrBufferFull); err != nil && !inside {
			// All of them are older, as lines of two streams may be: the file
			// that the last one is of would have it.
			return errors.Is(err, io.EOF) && !first, false
		}
	}
}
