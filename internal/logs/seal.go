package logs

import (
	"bytes"
	"os"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// sealAt is how long the plain part of a log gets before it is sealed.
const sealAt = 4 << 20

// small is how long a log may be and stay plain at its end: less than a block of
// a disk, which it takes anyway.
const small = 4 << 10

// sealing is the steps of a seal, at each of which a process may die. What is
// sealed is appended and on the disk before the plain part goes, and the plain
// part counts where both have something. Tests stop between them.
type sealing int

const (
	sealAppended sealing = iota // blocks are written
	sealSynced                  // they are on the disk
	sealReplaced                // the plain part begins behind them
)

// seal moves what is plain into the sealed part: whole lines of it, or at the
// end of the log all. A failure changes nothing; what is plain stays so.
func (w *Writer) seal(all bool) error {
	end := w.size
	if !all {
		end -= int64(len(w.partial))
	}
	if w.sealed == nil {
		var err error
		if w.sealed, err = openSealed(w.store.sealedPath(w.task, w.attempt), os.O_RDWR|os.O_CREATE); err != nil {
			return err
		}
	}
	before, blocks := w.sealed.size, len(w.sealed.blocks)
	undo := func(err error) error {
		_ = w.sealed.file.Truncate(before)
		w.sealed.size, w.sealed.blocks = before, w.sealed.blocks[:blocks]
		return berth.Errorf(berth.CodeExhausted, "cannot seal the log of task %s: %w", w.task, err)
	}
	if err := w.sealBlocks(end, all); err != nil {
		return undo(err)
	}
	crash.Point("logs.blocks-appended")
	if err := w.reached(sealAppended); err != nil {
		return err
	}
	if err := w.sealed.file.Sync(); err != nil {
		return undo(err)
	}
	crash.Point("logs.blocks-synced")
	if err := w.reached(sealSynced); err != nil {
		return err
	}
	path := w.store.path(w.task, w.attempt)
	if all {
		if err := os.Remove(path); err != nil {
			return undo(err)
		}
		w.plain.close()
		w.plain = nil
		crash.Point("logs.all-sealed")
		return w.reached(sealReplaced)
	}
	rest := make([]byte, w.size-end)
	if _, err := w.plain.readAt(rest, end); len(rest) > 0 && err != nil {
		return undo(err)
	}
	next, err := newPlain(path, end, rest)
	if err != nil {
		return undo(err)
	}
	w.plain.close()
	w.plain = next
	crash.Point("logs.part-sealed")
	return w.reached(sealReplaced)
}

// sealBlocks appends blocks for what is plain up to an offset.
func (w *Writer) sealBlocks(end int64, all bool) error {
	step, inside := w.step, false
	if n := len(w.sealed.blocks); n > 0 {
		step = w.sealed.blocks[n-1].after
	}
	buf := make([]byte, min(w.store.blockSize, end-w.plain.base))
	for at := w.plain.base; at < end; {
		data := buf[:min(int64(len(buf)), end-at)]
		if _, err := w.plain.readAt(data, at); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(data, '\n') + 1; i > 0 && at+int64(len(data)) < end {
			data = data[:i]
		}
		b := block{offset: at}
		if inside {
			b.flags |= flagInside
		}
		b.describe(data, step)
		if err := w.appendBlock(&b, data); err != nil {
			return err
		}
		at, step, inside = b.end(), b.after, data[len(data)-1] != '\n'
	}
	if !all {
		return nil
	}
	return w.appendBlock(&block{offset: end, before: step, after: step, flags: flagEnd}, nil)
}

func (w *Writer) appendBlock(b *block, data []byte) error {
	b.at = w.sealed.size
	err := w.store.codec.pack(b, data, func(packed []byte) error {
		_, err := w.sealed.file.WriteAt(packed, b.at)
		return err
	})
	if err == nil {
		w.sealed.blocks = append(w.sealed.blocks, *b)
		w.sealed.size = b.next()
	}
	return err
}

func (w *Writer) reached(at sealing) error {
	if w.store.testSeal != nil {
		return w.store.testSeal(at)
	}
	return nil
}

// unseal makes what is sealed from a block on plain again: a log that was
// thought to be complete goes on.
func (w *Writer) unseal(from int) error {
	b := &w.sealed.blocks[from]
	var data []byte
	for i := range w.sealed.blocks[from:] {
		piece, err := w.sealed.read(&w.sealed.blocks[from+i], w.store.codec)
		if err != nil {
			return err
		}
		data = append(data, piece...)
	}
	next, err := newPlain(w.store.path(w.task, w.attempt), b.offset, data)
	if err != nil {
		return err
	}
	w.plain.close()
	w.plain = next
	return w.cutSealed(b.offset)
}

// cutSealed drops what is sealed from an offset on: the plain part has it.
func (w *Writer) cutSealed(offset int64) error {
	n := len(w.sealed.blocks)
	for n > 0 && w.sealed.blocks[n-1].end() > offset || n > 0 && w.sealed.blocks[n-1].size == 0 && w.sealed.blocks[n-1].offset >= offset {
		n--
	}
	w.sealed.size = 0
	if n > 0 {
		w.sealed.size = w.sealed.blocks[n-1].next()
	}
	w.sealed.blocks = w.sealed.blocks[:n]
	return w.sealed.file.Truncate(w.sealed.size)
}
