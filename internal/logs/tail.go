package logs

import (
	"bytes"
	"errors"
	"io"

	"github.com/berth-run/berth"
)

// tail returns the offset of the last n lines that the query selects, looking
// from the end: blocks that hold too few of them aren't read where the index
// says how many there are.
func (r *reader) tail(n int) (int64, error) {
	s := r.source
	offset := s.sealedEnd()
	if s.plain != nil {
		found, err := r.tailPlain(n, &offset)
		if err != nil || found == n {
			return offset, err
		}
		n -= found
	}
	blocks := s.sealedBlocks()
	countable := r.grep == nil && r.query.Stream == berth.LogUnknown && r.since == nil
	for i := s.sealed.find(s.sealedEnd()) - 1; i >= 0; i-- {
		b := &blocks[i]
		if countable && b.hidden == 0 && b.lines < n || r.since != nil && !b.last.IsZero() && b.last.Before(r.query.Since) {
			if countable && b.hidden == 0 {
				n -= b.lines
			}
			offset = b.offset
			continue
		}
		data, err := s.read(i)
		if errors.Is(err, errDamaged) {
			offset = b.offset
			continue
		}
		if err != nil {
			return 0, err
		}
		starts := r.starts(data, b.offset, b.flags&flagInside != 0)
		if len(starts) >= n {
			return starts[len(starts)-n], nil
		}
		n -= len(starts)
		offset = b.offset
	}
	return offset, nil
}

// starts returns the offsets of the lines that are selected.
func (r *reader) starts(data []byte, at int64, inside bool) []int64 {
	var found []int64
	for text := range bytes.Lines(data) {
		if l := parseLine(text); !inside && r.selects(&l) {
			found = append(found, at)
		}
		inside = false
		at += int64(len(text))
	}
	return found
}

// tailPlain is tail for the plain part: how many lines it found there, at most
// n, and where they begin.
func (r *reader) tailPlain(n int, offset *int64) (int, error) {
	p := r.source.plain
	end, err := p.end()
	if err != nil {
		return 0, err
	}
	*offset = end
	found := 0
	for size := int64(64 << 10); end > p.base; {
		start := max(p.base, end-size)
		data := make([]byte, end-start)
		if _, err := p.readAt(data, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
		}
		if start > p.base {
			// From the first line that begins here on.
			first := bytes.IndexByte(data[:len(data)-1], '\n') + 1
			if first == 0 {
				size *= 4 // all of it is one line
				continue
			}
			data, start = data[first:], start+int64(first)
		}
		starts := r.starts(data, start, false)
		if found+len(starts) >= n {
			*offset = starts[len(starts)-(n-found)]
			return n, nil
		}
		found += len(starts)
		end, *offset = start, start
		size = 1 << 20
	}
	return found, nil
}

// blockStart returns an offset at or before another one, at which it is known
// what step it is.
func (s *source) blockStart(offset int64) (int64, int) {
	blocks := s.sealedBlocks()
	i := s.sealed.find(offset)
	switch {
	case i < len(blocks) && blocks[i].offset <= offset && offset < s.sealedEnd():
		return blocks[i].offset, blocks[i].before
	case i > 0 && blocks[i-1].end() <= s.sealedEnd():
		return blocks[i-1].end(), blocks[i-1].after
	}
	return 0, 0
}

// intoLine finds out, for an offset in the middle of a line, whether that line
// is selected: a read of a long line was cut.
func (r *reader) intoLine() error {
	want := r.query.Offset
	for back := int64(4 << 10); ; back *= 8 {
		from := max(0, want-back)
		begun, err := r.lineStart(from, want)
		if err != nil {
			return err
		}
		if begun == nil && from > 0 {
			continue
		}
		if len(begun) > 0 {
			l := parseLine(begun)
			r.inside = true
			if gap, ok := l.gap(); ok || gap != "" {
				r.shown = false
				return nil
			}
			// Its beginning was given, so it is selected, unless it is no output.
			r.shown, r.stream = l.output(), l.stream()
		}
		return nil
	}
}

// lineStart returns the beginning of the line that the second offset is in:
// empty where one begins there, nil where it begins before the first offset.
func (r *reader) lineStart(from, to int64) ([]byte, error) {
	var data []byte
	at := from
	for at < to {
		p, err := r.source.next(at, nil)
		if err != nil || len(p.data) == 0 && p.gap == "" {
			return []byte{}, err // behind the end
		}
		if p.gap != "" {
			data = nil
		}
		data = append(data, p.data...)
		at = p.at + int64(len(p.data))
	}
	if over := at - to; over >= int64(len(data)) {
		return []byte{}, nil
	} else if over > 0 {
		data = data[:int64(len(data))-over]
	}
	i := bytes.LastIndexByte(data, '\n')
	if i < 0 && from > 0 {
		return nil, nil
	}
	return data[i+1:], nil
}
