package let

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth/internal/agent"
)

// containerLog is the container's output, into which everything goes by one way: so
// lines stay whole and in order, and those of stderr can be marked, which a
// cluster does not tell from those of stdout.
type containerLog struct {
	stdout, stderr *logStream

	mu   sync.Mutex
	open *logStream // whose line has begun and not ended
	buf  []byte
}

// logStream is what one of a program's two streams goes to. A line is written
// once it is whole, or longer than maxPending.
type logStream struct {
	log  *containerLog
	file *os.File // nil: that of stdout
	mark []byte   // before each line
	held []byte   // the beginning of a line
}

// newLog begins the log. Where the control plane doesn't ask for marks, each
// stream stays what it is.
func newLog(order *agent.Order) *containerLog {
	l := &containerLog{}
	l.stdout, l.stderr = &logStream{log: l, file: os.Stdout}, &logStream{log: l, file: os.Stderr}
	if order.Streams {
		l.stderr.file, l.stderr.mark = os.Stdout, agent.StderrMark(order.Nonce)
		_, _ = os.Stdout.Write(agent.StreamsFrame(order.Nonce))
	}
	return l
}

func (s *logStream) Write(p []byte) (int, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	data := p
	if len(s.held) > 0 {
		s.held = append(s.held, p...)
		data = s.held
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if len(data)-end > maxPending {
		end = len(data)
	}
	err := s.emit(data[:end])
	s.held = append([]byte(nil), data[end:]...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what is held back: no more will come of its line.
func (s *logStream) flush() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.flushLocked()
}

func (s *logStream) flushLocked() {
	_ = s.emit(s.held)
	s.held = nil
}

// emit writes lines, and the beginning of one. A line that the other stream has
// begun ends there.
func (s *logStream) emit(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	l := s.log
	out := l.buf[:0]
	shared := l.open != nil && l.open.file == s.file
	if shared && l.open != s {
		out = append(out, '\n')
	}
	inside := l.open == s
	if len(s.mark) == 0 {
		out = append(out, data...)
	} else {
		for line := range bytes.Lines(data) {
			if !inside {
				out = append(out, s.mark...)
			}
			inside = false
			out = append(out, line...)
		}
	}
	l.open = nil
	if data[len(data)-1] != '\n' {
		l.open = s
	}
	l.buf = out[:0]
	_, err := s.file.Write(out)
	return err
}

// frame writes what is the agent's, behind all that came before it. It begins
// a line.
func (l *containerLog) frame(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stdout.flushLocked()
	l.stderr.flushLocked()
	l.open = nil
	_, _ = os.Stdout.Write(append([]byte("\n"), frame...))
}

// outlet is a pipe for programs to write into, which a stream of the log is fed
// from.
type outlet struct {
	file   *os.File // the end for programs
	reader *os.File
	drain  *drain
	to     *redactor
	stream *logStream

	settled, resume chan struct{}
	done            chan struct{}
}

// newOutlet begins to copy from a pipe into a stream, without the secrets.
func newOutlet(stream *logStream, s secrets) (*outlet, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o := &outlet{
		file: writer, reader: reader, drain: &drain{file: reader}, to: &redactor{to: stream, secrets: s}, stream: stream,
		settled: make(chan struct{}), resume: make(chan struct{}), done: make(chan struct{}),
	}
	go o.copy()
	return o, nil
}

func (o *outlet) copy() {
	defer close(o.done)
	defer o.reader.Close() // where the log is gone, programs see a closed output as they would without this
	for {
		_, err := io.Copy(o.to, o.drain)
		if err == nil {
			err = o.to.Close()
		}
		o.stream.flush()
		if err != nil || !o.drain.over() {
			return
		}
		o.settled <- struct{}{}
		if _, more := <-o.resume; !more {
			return
		}
	}
}

// settle returns once what was written is in the log. More may come.
func (o *outlet) settle() {
	o.drain.finish()
	select {
	case <-o.settled:
		o.drain.again() // before the next finish
		o.resume <- struct{}{}
	case <-o.done:
	}
}

// close returns once what was written is in the log. What programs left behind
// may hold the pipe open, and is not waited for.
func (o *outlet) close() {
	o.file.Close()
	select {
	case <-o.done:
		return
	case <-time.After(leftover):
	}
	o.drain.finish()
	select {
	case <-o.settled:
		close(o.resume)
		<-o.done
	case <-o.done:
	}
}
