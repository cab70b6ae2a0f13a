package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
)

// Read yields what is stored of an attempt's log from an offset on. With
// query.Follow it goes on until done says that no more will come; done is
// asked before each look at the file, so nothing is missed in between.
func (s *Store) Read(ctx context.Context, task string, attempt int, query berth.LogQuery, done func() bool) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		r := &reader{path: s.path(task, attempt), attempt: attempt, query: query, offset: query.Offset}
		defer r.close()
		if query.Step > 0 {
			r.offset, query.Tail = 0, 0 // what step it is at the offset is known from the beginning
		}
		if query.Tail > 0 && query.Offset == 0 {
			offset, err := r.tail(query.Tail)
			if err != nil {
				yield(berth.LogChunk{}, err)
				return
			}
			r.offset = offset
		}
		for {
			changed := s.Changed(task, attempt)
			last := !query.Follow || done()
			if !r.drain(last, yield) || last {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(berth.LogChunk{}, ctx.Err())
				return
			}
		}
	}
}

type reader struct {
	path    string
	attempt int
	query   berth.LogQuery
	offset  int64
	step    int // that the line at offset is of
	file    *os.File
	buf     []byte
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func (r *reader) open() (bool, error) {
	if r.file != nil {
		return true, nil
	}
	file, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
	}
	r.file = file
	return true, nil
}

// drain yields all that the file has now. A last line without its newline is
// given only at the end, as it may be half written.
func (r *reader) drain(last bool, yield func(berth.LogChunk, error) bool) bool {
	ok, err := r.open()
	if err != nil {
		return yield(berth.LogChunk{}, err)
	}
	if !ok {
		return true
	}
	if r.buf == nil {
		r.buf = make([]byte, 256<<10)
	}
	for {
		buf := r.buf
		n, err := r.file.ReadAt(buf, r.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return yield(berth.LogChunk{}, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err))
		}
		atEnd := errors.Is(err, io.EOF)
		data := buf[:n]
		if end := bytes.LastIndexByte(data, '\n') + 1; end < n {
			switch {
			case end > 0:
				data = data[:end]
			case atEnd && !last:
				return true
			case !atEnd:
				r.buf = make([]byte, 2*len(buf)) // a line longer than the buffer
				continue
			}
		}
		if len(data) == 0 {
			return true
		}
		r.offset += int64(len(data))
		if !r.emit(data, r.offset-int64(len(data)), yield) {
			return false
		}
		if atEnd && len(data) == n {
			return true
		}
	}
}

// emit yields a batch of lines, which begins at an offset, as the query wants
// them, parted at gaps.
func (r *reader) emit(data []byte, at int64, yield func(berth.LogChunk, error) bool) bool {
	var out []byte
	for line := range bytes.Lines(data) {
		if gap, ok := bytes.CutPrefix(line, []byte(gapMark)); ok {
			at += int64(len(line))
			if len(out) > 0 && !yield(berth.LogChunk{Attempt: r.attempt, Data: out, Offset: r.offset}, nil) {
				return false
			}
			out = nil
			if !yield(berth.LogChunk{Attempt: r.attempt, Gap: strings.TrimSpace(string(gap)), Offset: r.offset}, nil) {
				return false
			}
			continue
		}
		here := at
		at += int64(len(line))
		stamp, content := split(line)
		if stamp != "" && line[len(stamp)] == '!' {
			if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(content), "step "))); err == nil {
				r.step = n
			}
			continue
		}
		if r.query.Step > 0 && (r.step != r.query.Step || here < r.query.Offset) {
			continue
		}
		if !r.query.Since.IsZero() && stamp != "" && compareStamps(stamp, r.query.Since.UTC().Format("2006-01-02T15:04:05.999999999Z07:00")) < 0 {
			continue
		}
		if r.query.Timestamps {
			content = line
		}
		out = append(out, content...)
	}
	return len(out) == 0 || yield(berth.LogChunk{Attempt: r.attempt, Data: out, Offset: r.offset}, nil)
}

// tail returns the offset of the last n lines, looking from the end.
func (r *reader) tail(n int) (int64, error) {
	ok, err := r.open()
	if err != nil || !ok {
		return 0, err
	}
	end, err := r.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
	}
	buf := make([]byte, 64<<10)
	first := true
	for end > 0 {
		start := max(0, end-int64(len(buf)))
		piece := buf[:end-start]
		if _, err := r.file.ReadAt(piece, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
		}
		if first && len(piece) > 0 && piece[len(piece)-1] == '\n' {
			piece = piece[:len(piece)-1]
		}
		first = false
		for i := len(piece) - 1; i >= 0; i-- {
			if piece[i] == '\n' {
				if n--; n == 0 {
					return start + int64(i) + 1, nil
				}
			}
		}
		end = start
	}
	return 0, nil
}
