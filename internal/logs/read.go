package logs

import (
	"bytes"
	"context"
	"iter"
	"regexp"
	"time"

	"github.com/berth-run/berth"
)

// Read yields what is stored of an attempt's log from an offset on. With
// query.Follow it goes on until done says that no more will come; done is
// asked before each look at the files, so nothing is missed in between.
func (s *Store) Read(ctx context.Context, task string, attempt int, query berth.LogQuery, done func() bool) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		r, err := newReader(s.source(ctx, task, attempt), attempt, query)
		if err != nil {
			yield(berth.LogChunk{}, err)
			return
		}
		defer r.source.close()
		r.source.patient = query.Follow
		if err := r.begin(); err != nil {
			yield(berth.LogChunk{}, err)
			return
		}
		for {
			changed := s.Changed(task, attempt)
			last := !query.Follow || done()
			r.source.patient = !last
			if !r.drain(last, yield) {
				return
			}
			if last {
				if why := s.removed(ctx, task, attempt); why != "" && !r.source.exists() {
					yield(berth.LogChunk{Attempt: attempt, Gap: why, Offset: r.offset}, nil)
				}
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

// reader selects lines of a source.
type reader struct {
	source  *source
	attempt int
	query   berth.LogQuery
	since   []byte // query.Since as lines have it
	grep    *regexp.Regexp

	offset int64  // up to where all is given
	carry  []byte // what came behind it: the beginning of a line
	step   int    // that the line at offset is of
	inside bool   // offset is in the middle of a long line
	shown  bool   // whether that line is selected
	stream berth.LogStream
}

func newReader(s *source, attempt int, query berth.LogQuery) (*reader, error) {
	r := &reader{source: s, attempt: attempt, query: query, offset: query.Offset}
	if !query.Since.IsZero() {
		r.since = []byte(query.Since.UTC().Format(time.RFC3339Nano))
	}
	if query.Grep != "" {
		var err error
		if r.grep, err = regexp.Compile(query.Grep); err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "the pattern %q is not a regular expression: %w", query.Grep, err)
		}
	}
	return r, nil
}

// begin finds out where to begin.
func (r *reader) begin() error {
	if err := r.source.refresh(); err != nil {
		return err
	}
	var err error
	switch {
	case r.query.Step > 0:
		// What step it is at the offset is known from where its block begins.
		r.offset, r.step = r.source.blockStart(r.query.Offset)
	case r.query.Tail > 0 && r.query.Offset == 0:
		r.offset, err = r.tail(r.query.Tail)
	case r.query.Offset > 0:
		err = r.intoLine()
	}
	return err
}

// unwanted reports whether a block has nothing that is selected.
func (r *reader) unwanted(b *block) bool {
	if r.query.Since.IsZero() || b.last.IsZero() || !b.last.Before(r.query.Since) || len(r.carry) > 0 || r.inside {
		return false
	}
	r.step = b.after
	return true
}

// maxPiece is how long a line may be and be given as one.
const maxPiece = 1 << 20

// drain yields all that there is now. A last line without its newline is given
// only at the end, as it may be half written.
func (r *reader) drain(last bool, yield func(berth.LogChunk, error) bool) bool {
	for {
		p, err := r.source.next(r.offset+int64(len(r.carry)), r.unwanted)
		if err != nil {
			yield(berth.LogChunk{}, err)
			return false
		}
		if p.gap != "" {
			if !r.emit(r.carry, yield) {
				return false
			}
			r.carry, r.offset, r.inside = nil, p.at, false
			if !yield(berth.LogChunk{Attempt: r.attempt, Gap: p.gap, Offset: r.offset}, nil) {
				return false
			}
			continue
		}
		if len(p.data) == 0 {
			if !last || len(r.carry) == 0 {
				return true
			}
			rest := r.carry
			r.carry = nil
			return r.emit(rest, yield)
		}
		if len(r.carry) == 0 {
			r.offset = p.at // blocks may have been passed over
		}
		data := p.data
		if len(r.carry) > 0 {
			data = append(r.carry, data...)
			r.carry = nil
		}
		end := bytes.LastIndexByte(data, '\n') + 1
		if len(data)-end > maxPiece {
			end = len(data)
		}
		rest := data[end:]
		if end > 0 && !r.emit(data[:end], yield) {
			return false
		}
		r.carry = bytes.Clone(rest)
	}
}

// emit yields what is selected of whole lines, or pieces of a long one, which
// begin at r.offset; a chunk is of one stream.
func (r *reader) emit(data []byte, yield func(berth.LogChunk, error) bool) bool {
	var out []byte
	flush := func() bool {
		if len(out) == 0 {
			return true
		}
		chunk := berth.LogChunk{Attempt: r.attempt, Stream: r.stream, Data: out, Offset: r.offset}
		out = nil
		return yield(chunk, nil)
	}
	for text := range bytes.Lines(data) {
		here := r.offset
		ends := text[len(text)-1] == '\n'
		if r.inside {
			if r.inside = !ends; r.shown {
				out = append(out, text...)
			}
			r.offset += int64(len(text))
			continue
		}
		l := parseLine(text)
		if gap, ok := l.gap(); ok {
			if !flush() {
				return false
			}
			r.offset += int64(len(text))
			if here >= r.query.Offset && !yield(berth.LogChunk{Attempt: r.attempt, Gap: gap, Offset: r.offset}, nil) {
				return false
			}
			continue
		}
		if n, ok := l.step(); ok {
			r.step = n
		}
		r.inside = !ends
		if r.shown = here >= r.query.Offset && r.selects(&l); r.shown {
			if stream := l.stream(); stream != r.stream {
				if !flush() {
					return false
				}
				r.stream = stream
			}
			if r.query.Timestamps && l.sep != 0 {
				out = append(append(out, l.stamp...), ' ')
			}
			out = append(out, l.content...)
		}
		r.offset += int64(len(text))
	}
	return flush()
}

// selects reports whether a line is output that the query wants. Gaps are told
// whatever it wants.
func (r *reader) selects(l *line) bool {
	if !l.output() || r.query.Step > 0 && r.step != r.query.Step {
		return false
	}
	switch r.query.Stream {
	case berth.LogStdout:
		if l.sep == sepStderr {
			return false
		}
	case berth.LogStderr:
		if l.sep != sepStderr {
			return false
		}
	}
	if r.since != nil && l.sep != 0 && parseStamp(l.stamp).Before(r.query.Since) {
		return false
	}
	return r.grep == nil || r.grep.Match(bytes.TrimSuffix(l.content, []byte("\n")))
}
