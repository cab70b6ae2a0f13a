package logs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
)

// refreshShared finds out, behind refreshLocal, what of the log only the parts
// have that all servers read: its beginning, where this server took the log up
// later; or all of it, where another has it, or it isn't here any more.
func (s *source) refreshShared() error {
	begin, ok := s.begin()
	if ok && (s.store.writes(s.task, s.attempt) || s.sealed.complete()) {
		if begin == 0 {
			return nil
		}
		parts, err := s.store.parts(s.ctx, s.task, s.attempt)
		if err != nil {
			return s.unread(err)
		}
		count, _ := counting(parts)
		before, err := s.store.remoteBlocks(s.ctx, count, begin)
		if err != nil {
			return s.unread(err)
		}
		if s.sealed == nil {
			s.sealed = &sealed{}
		}
		s.sealed.prepend(before)
		s.cached = -1
		return nil
	}
	parts, err := s.store.parts(s.ctx, s.task, s.attempt)
	if err != nil {
		if ok && begin == 0 || !ok && s.patient {
			return nil // what is here is given
		}
		return s.unread(err)
	}
	count, _ := counting(parts)
	if end, err := s.localEnd(); err != nil || ok && begin == 0 && end >= endOf(count) && !whole(count) {
		return err
	}
	if len(count) == 0 {
		return nil
	}
	return s.readParts(count)
}

// readParts makes the parts all that there is to read.
func (s *source) readParts(count []part) error {
	blocks, err := s.store.remoteBlocks(s.ctx, count, endOf(count)+1)
	if err != nil {
		return s.unread(err)
	}
	s.close()
	s.plain, s.sealed, s.cached, s.remote = nil, &sealed{blocks: blocks}, -1, true
	return nil
}

// refreshRemote looks for what other servers have added.
func (s *source) refreshRemote() error {
	if s.sealed.complete() {
		return nil
	}
	parts, err := s.store.parts(s.ctx, s.task, s.attempt)
	if err != nil {
		return s.unread(err)
	}
	if count, _ := counting(parts); endOf(count) > s.sealed.end() || whole(count) {
		return s.readParts(count)
	}
	return nil
}

func (s *source) unread(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return berth.Errorf(cmp.Or(berth.CodeOf(err), berth.CodeUnavailable), "the log of task %s is not on this server and cannot be read: %w", s.task, err)
}

// begin is the offset at which what is here begins; not ok where nothing is.
func (s *source) begin() (int64, bool) {
	if s.sealed != nil && len(s.sealed.blocks) > 0 {
		if first := &s.sealed.blocks[0]; first.file == nil {
			return first.offset, true
		}
		return 0, true // the parts before it are known already
	}
	if s.plain != nil {
		return s.plain.base, true
	}
	return 0, false
}

// localEnd is where what is here ends.
func (s *source) localEnd() (int64, error) {
	if s.plain != nil {
		return s.plain.end()
	}
	return s.sealed.end(), nil
}

// writes reports whether this process writes a log.
func (s *Store) writes(task string, attempt int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shipments[s.path(task, attempt)]
	return sh != nil && sh.writers > 0
}

// takeUp makes what is here of a log what all servers know of it: behind what
// another server stored, the log goes on. What this server stored last is here
// already, and perhaps more.
func (w *Writer) takeUp(sh *shipment, fresh bool) error {
	s := w.store
	sh.known = fresh
	if fresh {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	local := s.source(ctx, w.task, w.attempt)
	defer local.close()
	if err := local.refreshLocal(); err != nil {
		return err
	}
	begin, here := local.begin()
	parts, err := s.parts(ctx, w.task, w.attempt)
	if err != nil {
		if here {
			return nil // it is found out when it is sent
		}
		return err
	}
	sh.learn(parts, s.server)
	n := len(sh.parts)
	if n == 0 {
		return nil
	}
	end, err := local.localEnd()
	if err != nil {
		return err
	}
	if here && begin <= endOf(sh.parts) && (sh.parts[n-1].server == s.server || local.sealed.complete()) && (end >= endOf(sh.parts) || local.sealed.complete()) {
		if local.sealed == nil && begin > 0 {
			before, err := s.remoteBlocks(ctx, sh.parts, begin)
			if err != nil {
				return err
			}
			if n := len(before); n > 0 {
				w.step = before[n-1].after
			}
		}
		return nil
	}
	return w.restore(ctx, sh)
}

// restore puts the end of what is stored into the place of what is here: as
// much as is needed to know what was last.
func (w *Writer) restore(ctx context.Context, sh *shipment) error {
	s := w.store
	var blocks []block
	size := int64(0)
	for i := len(sh.parts) - 1; i >= 0 && size < s.blockSize; i-- {
		more, err := s.index(ctx, &sh.parts[i])
		if err != nil {
			return err
		}
		blocks = append(more, blocks...)
		size = 0
		for _, b := range blocks {
			size += b.end() - b.offset
		}
	}
	// Of many blocks the last ones do.
	for len(blocks) > 1 && (size-(blocks[0].end()-blocks[0].offset) >= s.blockSize) || len(blocks) > 1 && blocks[1].flags&flagInside != 0 && size > 4<<20 {
		size -= blocks[0].end() - blocks[0].offset
		blocks = blocks[1:]
	}
	base, step := endOf(sh.parts), 0
	var data []byte
	whole := sealed{blocks: blocks}
	for i := range blocks {
		more, err := whole.read(&blocks[i], s.codec)
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		if err != nil || len(data) > 0 && base+int64(len(data)) != blocks[i].offset {
			data = nil // what is missing stays so
		}
		if len(data) == 0 {
			base, step = blocks[i].offset, blocks[i].before
		}
		data = append(data, more...)
	}
	if len(data) == 0 {
		base = endOf(sh.parts)
	}
	if err := s.discard(w.task, w.attempt); err != nil {
		return err
	}
	next, err := newPlain(s.path(w.task, w.attempt), base, data)
	if err != nil {
		return err
	}
	next.close()
	w.step = step
	return nil
}

// stepAt returns the step that a part leaves off in.
func (s *Store) stepAt(ctx context.Context, p *part) (int, error) {
	if p.after < 0 {
		blocks, err := s.index(ctx, p)
		if err != nil {
			return 0, err
		}
		p.after = 0
		if n := len(blocks); n > 0 {
			p.after = blocks[n-1].after
		}
	}
	return p.after, nil
}

func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// serverName returns what this server's parts are named by: a name that stays
// with the directory, as what is in it does.
func serverName(dir string) (string, error) {
	path := filepath.Join(dir, "server")
	name, err := os.ReadFile(path)
	if err == nil && len(name) > 0 && !bytes.ContainsAny(name, "./") {
		return string(name), nil
	}
	made := strings.ToLower(rand.Text()[:12])
	if err := os.WriteFile(path, []byte(made), 0o600); err != nil {
		return "", berth.Errorf(berth.CodeForbidden, "cannot write into the directory for logs: %w", err)
	}
	return made, nil
}
