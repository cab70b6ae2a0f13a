package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berth-run/berth"
)

// source is a log's two parts as one sequence of bytes, and before them, or in
// their place, what other servers stored of it.
type source struct {
	ctx     context.Context
	store   *Store
	task    string
	attempt int
	path    string
	packed  string // path of the sealed part
	plain   *plain
	sealed  *sealed
	remote  bool // all of it is what other servers can read
	patient bool // where nothing is here there may be something later

	cached int // index of the block that is decompressed
	block  []byte
	buf    []byte
}

func (s *Store) source(ctx context.Context, task string, attempt int) *source {
	return &source{ctx: ctx, store: s, task: task, attempt: attempt, path: s.path(task, attempt), packed: s.sealedPath(task, attempt), cached: -1}
}

func (s *source) close() {
	s.plain.close()
	s.sealed.close()
}

// refresh opens what is there now. The plain part first: what it no longer has
// is sealed already.
func (s *source) refresh() error {
	if s.remote {
		return s.refreshRemote()
	}
	if err := s.refreshLocal(); err != nil || s.store.shared == nil {
		return err
	}
	return s.refreshShared()
}

func (s *source) refreshLocal() error {
	next, err := openPlain(s.path, os.O_RDONLY)
	if err != nil {
		return err
	}
	s.plain.close()
	s.plain = next
	if s.sealed == nil || s.sealed.file == nil {
		var before []block
		if s.sealed != nil {
			before = s.sealed.blocks
		}
		next, err := openSealed(s.packed, os.O_RDONLY)
		if err != nil || next == nil {
			return err
		}
		next.prepend(before)
		s.sealed = next
		return nil
	}
	n := len(s.sealed.blocks)
	if err := s.sealed.refresh(); err != nil {
		return err
	}
	if info, err := s.sealed.file.Stat(); err == nil && info.Size() < s.sealed.size || n > len(s.sealed.blocks) {
		s.sealed.close() // part of it is plain again
		s.cached = -1
		var before []block
		for i := range s.sealed.blocks {
			if s.sealed.blocks[i].file != nil {
				before = s.sealed.blocks[:i+1]
			}
		}
		s.sealed, err = openSealed(s.packed, os.O_RDONLY)
		if s.sealed != nil {
			s.sealed.prepend(before)
		}
		return err
	}
	return nil
}

// exists reports whether there is a log at all.
func (s *source) exists() bool { return s.plain != nil || s.sealed != nil }

// sealedEnd is up to where the sealed part is what counts.
func (s *source) sealedEnd() int64 {
	if s.plain != nil {
		return min(s.sealed.end(), s.plain.base)
	}
	return s.sealed.end()
}

// piece is what a source has at an offset.
type piece struct {
	data   []byte // valid until the next call
	at     int64  // where it begins: behind the offset that was asked for where bytes are missing
	gap    string // what is missing before it
	before int    // step that data begins in, where it is a whole block; else -1
}

// next returns what comes at an offset, nothing at the end. A block that skip
// says isn't wanted is passed over.
func (s *source) next(offset int64, skip func(*block) bool) (piece, error) {
	for retried := false; ; {
		p := piece{at: offset, before: -1}
		if offset < s.sealedEnd() {
			return s.nextSealed(offset, skip)
		}
		if s.plain != nil {
			if offset < s.plain.base {
				p.at, p.gap = s.plain.base, s.missing(offset, s.plain.base, len(s.sealedBlocks()))
			}
			if s.buf == nil {
				s.buf = make([]byte, 256<<10)
			}
			n, err := s.plain.readAt(s.buf, p.at)
			if err != nil && !errors.Is(err, io.EOF) {
				return p, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
			}
			if p.data = s.buf[:n]; n > 0 || p.gap != "" {
				return p, nil
			}
		}
		// At the end of what was there when it was opened.
		if retried {
			if s.plain == nil && !s.remote && s.sealed != nil && !s.sealed.complete() && offset == s.sealed.end() {
				return piece{at: offset + 1, before: -1, gap: "the end of the stored log is missing: its file is damaged"}, nil
			}
			return p, nil
		}
		retried = true
		if err := s.refresh(); err != nil {
			return p, err
		}
	}
}

func (s *source) sealedBlocks() []block {
	if s.sealed == nil {
		return nil
	}
	return s.sealed.blocks
}

// nextSealed returns the rest of a block.
func (s *source) nextSealed(offset int64, skip func(*block) bool) (piece, error) {
	for i := s.sealed.find(offset); ; i++ {
		b := &s.sealed.blocks[i]
		p := piece{at: offset, before: -1}
		if b.offset > offset {
			p.at, p.gap = b.offset, s.missing(offset, b.offset, i)
			return p, nil
		}
		if skip != nil && skip(b) {
			if offset = b.end(); offset >= s.sealedEnd() || i+1 == len(s.sealed.blocks) {
				return s.next(offset, skip)
			}
			continue
		}
		data, err := s.read(i)
		if errors.Is(err, errDamaged) {
			p.at = b.end()
			p.gap = fmt.Sprintf("output between %s and %s is missing: the stored log is damaged (%d bytes)", displayed(b.first), displayed(b.last), b.end()-offset)
			return p, nil
		}
		if err != nil {
			return p, err
		}
		if offset == b.offset {
			p.before = b.before
		}
		p.data = data[offset-b.offset:]
		return p, nil
	}
}

// read returns what a block holds, and keeps it for the next time.
func (s *source) read(i int) ([]byte, error) {
	if s.cached == i {
		return s.block, nil
	}
	data, err := s.sealed.read(&s.sealed.blocks[i], s.store.codec)
	if err == nil {
		s.cached, s.block = i, data
	}
	return data, err
}

// missing says what nobody has between two offsets, the second being where a
// block begins.
func (s *source) missing(from, to int64, next int) string {
	since, until := "its beginning", "what follows"
	blocks := s.sealedBlocks()
	if next > 0 && next <= len(blocks) {
		since = displayed(blocks[next-1].last)
	}
	if next < len(blocks) {
		until = displayed(blocks[next].first)
	}
	return fmt.Sprintf("output between %s and %s is missing: the stored log is damaged (%d bytes)", since, until, to-from)
}
