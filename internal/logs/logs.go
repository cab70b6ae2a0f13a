// Package logs keeps the output of attempts in files of the data directory, so
// that logs outlive pods. It stores lines as the cluster gives them, each with
// its time, and gives them to readers, live.
//
// A log is a sequence of lines "TIME CONTENT\n" with TIME in RFC 3339 with
// nanoseconds. In place of the space '>' says that a line is of stdout and '^'
// that it is of stderr, where that is known. A line that begins with '!' is
// Berth's own: "!gap TEXT\n" says that output is missing at that place. So is
// one with '!' behind its time: "TIME!step N\n" says that what follows is output
// of step N, 0 being none. Only the very last line may lack its newline. Places
// in it are told by offsets, in bytes from its beginning, and stay what they are.
//
// On disk the newest part is plain, in TASK.ATTEMPT.log. What is older is sealed:
// compressed with zstd in blocks of a mebibyte, in TASK.ATTEMPT.log.zst, each
// behind an entry that says what is in it, which together are the index. A log
// that is complete is sealed as a whole. Logs of earlier versions are plain.
//
// Where several servers share an object store, the directory is a spool: what
// is written is sent on in parts, and gone from the directory once the log is
// complete there. See part.go for how it is stored, ship.go for how it is sent,
// and shared.go for how a server reads, or goes on with, what another stored.
package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
	"github.com/berth-run/berth/internal/objects"
)

// Store is a directory of logs.
type Store struct {
	dir   string
	codec *codec

	blockSize, sealAt int64 // tests have smaller ones

	testSeal func(sealing) error // tests end a seal between its steps

	shared     objects.Store // where all servers have logs; nil: in the directory
	server     string        // names this one in it
	log        *slog.Logger
	stop       context.CancelFunc
	shipping   sync.WaitGroup
	wake       chan struct{} // something is to be sent at once
	flushes    chan struct{} // has a value for each that is under way
	failing    atomic.Bool   // what was tried last failed
	shipEvery  time.Duration // tests have it shorter
	shipMerged int64         // how much of a log parts become that are merged while it grows

	mu        sync.Mutex
	changed   map[string]chan struct{} // closed when a file grows or is complete
	shipments map[string]*shipment
	failures  int64 // to send
}

// Open returns the store in a directory, which is made when it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot make the directory for logs: %w", err)
	}
	codec, err := newCodec()
	if err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "cannot compress logs: %w", err)
	}
	return &Store{dir: dir, codec: codec, blockSize: blockSize, sealAt: sealAt, changed: map[string]chan struct{}{}, shipEvery: shipEvery, shipMerged: shipAt}, nil
}

func (s *Store) sealedPath(task string, attempt int) string { return s.path(task, attempt) + ".zst" }

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
	plain   *plain
	sealed  *sealed // nil until something is
	size    int64   // of the log
	sealAt  int64   // the size at which the next part is sealed
	last    position
	partial []byte // the last line, while it has no newline
	step    int    // that what isn't sealed begins in, where nothing is
	whole   bool   // the last stream was read to its end
	pace    pace
	repeats repeats

	shipment *shipment // nil where the directory is where logs stay

	unjoined bool // the last stream didn't have what is stored, and nothing else
}

// position is the end of what is stored: the time of the last line, and every
// line of that very time, by which what comes again is told from what is new.
type position struct {
	time  string
	lines map[string]int
}

// Append opens a log for appending; what a killed process left of a line is cut
// off. Fresh says that no process has ever written it: then nobody is asked what
// others have stored of it.
func (s *Store) Append(task string, attempt int, fresh bool) (*Writer, error) {
	path := s.path(task, attempt)
	w := &Writer{store: s, task: task, attempt: attempt}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if s.shared != nil {
		s.mu.Lock()
		w.shipment = s.shipmentOf(task, attempt)
		w.shipment.writers++
		s.mu.Unlock()
		w.shipment.mu.Lock()
		defer w.shipment.mu.Unlock()
		if err == nil {
			err = w.takeUp(w.shipment, fresh)
		}
	}
	if err == nil {
		err = w.open(path)
	}
	if err == nil {
		err = w.recover()
	}
	if err == nil && s.shared != nil {
		w.shipment.trim(w.size)
	}
	if err != nil {
		w.Close()
		if berth.CodeOf(err) == berth.CodeUnavailable || berth.CodeOf(err) == berth.CodeForbidden {
			return nil, berth.Errorf(berth.CodeOf(err), "cannot go on with the log of task %s, of which another server may have a part: %w", task, err)
		}
		return nil, berth.Errorf(berth.CodeExhausted, "cannot keep the log of task %s: %w", task, err)
	}
	return w, nil
}

// open opens both parts and makes them one behind the other, whatever a
// process that was killed while it sealed has left.
func (w *Writer) open(path string) error {
	var err error
	if w.sealed, err = openSealed(w.store.sealedPath(w.task, w.attempt), os.O_RDWR); err != nil {
		return err
	}
	if w.plain, err = openPlain(path, os.O_RDWR); err != nil {
		return err
	}
	if w.sealed == nil {
		if w.plain == nil {
			w.plain, err = openPlain(path, os.O_RDWR|os.O_CREATE)
		}
		return err
	}
	if w.plain != nil {
		return w.cutSealed(w.plain.base)
	}
	// It was complete. Its last line comes again if it goes on.
	from := len(w.sealed.blocks) - 1
	for from > 0 && (w.sealed.blocks[from].size == 0 || w.sealed.blocks[from].flags&flagInside != 0) {
		from--
	}
	if from >= 0 {
		if err = w.unseal(from); !errors.Is(err, errDamaged) {
			return err
		}
	}
	w.plain, err = newPlain(path, w.sealed.end(), nil)
	return err
}

// recover reads the end of the log: where to go on, and what was the last.
func (w *Writer) recover() error {
	end, err := w.plain.end()
	if err != nil {
		return err
	}
	// Lines of one time are few; a tail is enough to know them.
	start := max(w.plain.base, end-4<<20)
	data := make([]byte, end-start)
	if _, err := w.plain.readAt(data, start); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if w.sealed != nil && len(w.sealed.blocks) > 0 && int64(len(data)) < w.store.blockSize {
		before, err := w.sealed.read(&w.sealed.blocks[len(w.sealed.blocks)-1], w.store.codec)
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		start -= int64(len(before))
		data = append(before, data...)
	}
	w.size = start + int64(bytes.LastIndexByte(data, '\n')+1)
	if w.size < w.plain.base { // the beginning of a long line is sealed
		w.size = w.plain.base
	}
	if err := w.plain.truncate(w.size); err != nil {
		return err
	}
	for line := range bytes.Lines(data[:max(0, w.size-start)]) {
		w.note(line)
	}
	w.sealAt = w.plain.base + w.store.sealAt
	return nil
}

func (w *Writer) note(text []byte) {
	l := parseLine(text)
	if l.sep == 0 {
		return
	}
	if string(l.stamp) != w.last.time {
		w.last = position{time: string(l.stamp), lines: map[string]int{}}
	}
	w.last.lines[string(l.content)]++
}

// Last returns the time of the last line, zero when there is none.
func (w *Writer) Last() time.Time { return parseStamp([]byte(w.last.time)) }

// Streams reports whether the log begins with a line that says that its lines
// of stderr are marked as such.
func (w *Writer) Streams() bool {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	s := w.store.source(ctx, w.task, w.attempt)
	defer s.close()
	if s.refresh() != nil {
		return false
	}
	p, err := s.next(0, nil)
	if err != nil {
		return false
	}
	text, _, _ := bytes.Cut(p.data, []byte("\n"))
	l := parseLine(text)
	return l.sep == sepMark && string(l.content) == streamsMark
}

func (w *Writer) write(data []byte) error {
	if n, err := w.plain.file.Write(data); err != nil {
		if n > 0 {
			_ = w.plain.truncate(w.size) // it comes again
		}
		return berth.Errorf(berth.CodeExhausted, "cannot keep the log of task %s: %w", w.task, err)
	}
	crash.Point("logs.appended")
	w.size += int64(len(data))
	if w.shipment != nil {
		w.store.mu.Lock()
		w.store.noteLocked(w.shipment, len(data), false)
		w.store.mu.Unlock()
	}
	w.store.Notify(w.task, w.attempt)
	return nil
}

// sealFull seals what is plain where that is long. What fails is tried again
// when there is as much once more: nothing is lost meanwhile.
func (w *Writer) sealFull() error {
	if w.size < w.sealAt {
		return nil
	}
	err := w.seal(false)
	w.sealAt = w.size + w.store.sealAt
	if err != nil && berth.CodeOf(err) != berth.CodeExhausted {
		return err
	}
	return nil
}

// Ended says when the program ended, to the second, by the clock of its node.
func (w *Writer) Ended(at time.Time) { w.pace.ended = at }

// Unjoined reports whether the last stream had nothing at all, not even the last
// line that is stored: output may be missing.
func (w *Writer) Unjoined() bool { return w.unjoined }

// Seal says that the log is complete. Its writer is of no more use.
func (w *Writer) Seal() error {
	why := ""
	switch {
	case w.unjoined:
		why = "the log was rotated before it could be read"
	case len(w.partial) > 0 && w.pace.endedIn(w.Last()):
		// A runtime that is told of a container's end waits for what is left in
		// its pipe for some seconds only (containerd 1.6 on a busy node lost
		// 66 KB of 30 MB), and what it gives then ends somewhere.
		why = "the log ends within a line, as where a node has too much to do to take in the last that a program writes"
	}
	if w.unjoined = false; why != "" {
		if err := w.Gap("output from " + displayed(w.Last()) + " to its end may be missing: " + why); err != nil {
			return err
		}
	}
	least := int64(small)
	if w.shipment != nil {
		if w.size == 0 {
			return w.store.discard(w.task, w.attempt)
		}
		least = 0 // it has to say that it is complete
		defer w.store.flush(w.shipment)
	}
	if w.plain == nil || w.size <= least && (w.sealed == nil || len(w.sealed.blocks) == 0) {
		return nil
	}
	return w.seal(true)
}

// StreamError is a failure of the stream that was copied from, not of the store.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return "the log stream broke: " + e.Err.Error() }
func (e *StreamError) Unwrap() error { return e.Err }

// Gap notes that output is missing here, and why.
func (w *Writer) Gap(why string) error {
	if len(w.partial) > 0 {
		// What is left of a line whose end nobody has.
		if err := w.write([]byte("\n")); err != nil {
			return err
		}
		w.partial = nil
	}
	return w.write([]byte(gapMark + strings.Join(strings.Fields(why), " ") + "\n"))
}

// Close closes the files.
func (w *Writer) Close() error {
	w.plain.close()
	w.sealed.close()
	if w.shipment != nil {
		w.store.mu.Lock()
		w.shipment.writers--
		w.store.noteLocked(w.shipment, 0, true)
		w.store.mu.Unlock()
		w.shipment = nil
	}
	return nil
}
