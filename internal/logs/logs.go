// Package logs keeps the output of attempts in files of the data directory,
// one file an attempt, so that logs outlive pods. It stores lines as the
// cluster gives them, each with its time, and gives them to readers, live.
//
// A file holds lines "TIME CONTENT\n" with TIME in RFC 3339 with nanoseconds.
// A line that begins with '!' is Berth's own: "!gap TEXT\n" says that output
// is missing at that place. So is one with '!' behind its time: "TIME!step N\n"
// says that what follows is output of step N, 0 being none. Only the very last line may lack its newline.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

const gapMark = "!gap "

// Store is a directory of logs.
type Store struct {
	dir string

	mu      sync.Mutex
	changed map[string]chan struct{} // closed when a file grows or is complete
}

// Open returns the store in a directory, which is made when it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot make the directory for logs: %w", err)
	}
	return &Store{dir: dir, changed: map[string]chan struct{}{}}, nil
}

func (s *Store) path(task string, attempt int) string {
	// Two characters of the id that vary keep directories small.
	return filepath.Join(s.dir, task[max(0, len(task)-2):], task+"."+strconv.Itoa(attempt)+".log")
}

// Changed returns a channel that is closed at the next change of a log.
func (s *Store) Changed(task string, attempt int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.path(task, attempt)
	ch, ok := s.changed[key]
	if !ok {
		ch = make(chan struct{})
		s.changed[key] = ch
	}
	return ch
}

// Notify wakes who waits for a change of a log.
func (s *Store) Notify(task string, attempt int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.path(task, attempt)
	if ch, ok := s.changed[key]; ok {
		close(ch)
		delete(s.changed, key)
	}
}

// Writer appends to the log of one attempt. One goroutine uses it.
type Writer struct {
	store   *Store
	task    string
	attempt int
	file    *os.File
	last    position
	partial []byte // the last line, while it has no newline
	whole   bool   // the last stream was read to its end
}

// position is the end of what is stored: the time of the last line, and every
// line of that very time, by which what comes again is told from what is new.
type position struct {
	time  string
	lines map[string]int
}

// Append opens a log for appending; what a killed process left of a line is cut off.
func (s *Store) Append(task string, attempt int) (*Writer, error) {
	path := s.path(task, attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, berth.Errorf(berth.CodeExhausted, "cannot keep the log of task %s: %w", task, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, berth.Errorf(berth.CodeExhausted, "cannot keep the log of task %s: %w", task, err)
	}
	w := &Writer{store: s, task: task, attempt: attempt, file: file}
	if err := w.recover(); err != nil {
		file.Close()
		return nil, err
	}
	return w, nil
}

// recover reads the end of the file: where to go on, and what was the last.
func (w *Writer) recover() error {
	size, err := w.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	// Lines of one time are few; a tail is enough to know them.
	start := max(0, size-4<<20)
	data := make([]byte, size-start)
	if _, err := w.file.ReadAt(data, start); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if int64(end)+start < size {
		if err := w.file.Truncate(start + int64(end)); err != nil {
			return err
		}
		if _, err := w.file.Seek(start+int64(end), io.SeekStart); err != nil {
			return err
		}
	}
	for line := range bytes.Lines(data[:end]) {
		w.note(line)
	}
	return nil
}

func (w *Writer) note(line []byte) {
	stamp, content := split(line)
	if stamp == "" {
		return
	}
	if stamp != w.last.time {
		w.last = position{time: stamp, lines: map[string]int{}}
	}
	w.last.lines[string(content)]++
}

// Last returns the time of the last line, zero when there is none.
func (w *Writer) Last() time.Time {
	t, _ := time.Parse(time.RFC3339Nano, w.last.time)
	return t
}

func (w *Writer) write(data []byte) error {
	if _, err := w.file.Write(data); err != nil {
		return berth.Errorf(berth.CodeExhausted, "cannot keep the log of task %s: %w", w.task, err)
	}
	w.store.Notify(w.task, w.attempt)
	return nil
}

// StreamError is a failure of the stream that was copied from, not of the store.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return "the log stream broke: " + e.Err.Error() }
func (e *StreamError) Unwrap() error { return e.Err }

// Gap notes that output is missing here, and why.
func (w *Writer) Gap(why string) error {
	text := bytes.ReplaceAll([]byte(why), []byte("\n"), []byte(" "))
	_, err := fmt.Fprintf(w.file, "%s%s\n", gapMark, text)
	w.store.Notify(w.task, w.attempt)
	return err
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// split parts a line into its time and its content (with the newline).
func split(line []byte) (stamp string, content []byte) {
	if !stamped(line) {
		return "", line
	}
	i := bytes.IndexAny(line, " !")
	return string(line[:i]), line[i+1:]
}

// stamped reports whether a line begins with a time.
func stamped(line []byte) bool {
	i := bytes.IndexAny(line[:min(len(line), len(time.RFC3339Nano)+1)], " !")
	return i >= len("2006-01-02T15:04:05Z") && line[0] >= '0' && line[0] <= '9' && line[10] == 'T'
}

// compareStamps orders two times in RFC 3339 in UTC, whose fractions may have
// lost trailing zeros.
func compareStamps(a, b string) int {
	ta, errA := time.Parse(time.RFC3339Nano, a)
	tb, errB := time.Parse(time.RFC3339Nano, b)
	if errA != nil || errB != nil {
		return 0
	}
	return ta.Compare(tb)
}

// Remove deletes what is kept of an attempt.
func (s *Store) Remove(task string, attempt int) error {
	if err := os.Remove(s.path(task, attempt)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
