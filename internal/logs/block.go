package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"
)

// block is an entry of the index of a sealed part: which bytes of the log it
// holds and what is in them.
type block struct {
	offset int64 // in the log
	size   int   // bytes of the log
	packed int   // bytes of the zstd frame behind the entry
	lines  int   // of the program's output
	before int   // step that its first line is of
	after  int   // step that what follows is of
	flags  uint32
	first  time.Time // of its lines; zero where none has a time
	last   time.Time // the latest

	at int64 // of the entry in the file

	file   io.ReaderAt // where it isn't that of the sealed part
	hidden int         // bytes at its end that don't count any more
}

const (
	flagInside = 1 << iota // it begins in the middle of a line
	flagEnd                // it is empty and says that the log is complete
)

func (b *block) end() int64  { return b.offset + int64(b.size-b.hidden) }
func (b *block) next() int64 { return b.at + int64(entrySize+b.packed) }

// An entry is a skippable frame of the zstd format, so that any zstd reads a
// sealed part as what it holds: 8 bytes of the frame's header, then the fields
// in little endian, and a checksum (CRC-32C) of all before it.
const (
	entryMagic = 0x184D2A5B
	entryTag   = "berthlog"
	entrySize  = 8 + len(entryTag) + 8 + 6*4 + 2*8 + 4
)

// blockSize is how much of a log is compressed as one: what has to be read to
// have a single line of it.
const blockSize = 1 << 20

// maxBlock bounds what an entry may claim.
const maxBlock = 4 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNoEntry = errors.New("this is not an entry of the index")

func (b *block) appendTo(out []byte) []byte {
	begin := len(out)
	le := binary.LittleEndian
	out = le.AppendUint32(out, entryMagic)
	out = le.AppendUint32(out, uint32(entrySize-8))
	out = append(out, entryTag...)
	out = le.AppendUint64(out, uint64(b.offset))
	for _, n := range []int{b.size, b.packed, b.lines, b.before, b.after, int(b.flags)} {
		out = le.AppendUint32(out, uint32(n))
	}
	out = le.AppendUint64(out, uint64(nano(b.first)))
	out = le.AppendUint64(out, uint64(nano(b.last)))
	return le.AppendUint32(out, crc32.Checksum(out[begin:], castagnoli))
}

// parseBlock reads an entry at its place in the file.
func parseBlock(data []byte, at int64) (block, error) {
	le := binary.LittleEndian
	if len(data) < entrySize || le.Uint32(data) != entryMagic || !bytes.Equal(data[8:8+len(entryTag)], []byte(entryTag)) {
		return block{}, errNoEntry
	}
	if le.Uint32(data[entrySize-4:]) != crc32.Checksum(data[:entrySize-4], castagnoli) {
		return block{}, errNoEntry
	}
	fields := data[8+len(entryTag):]
	number := func(i int) int { return int(le.Uint32(fields[8+4*i:])) }
	b := block{
		offset: int64(le.Uint64(fields)), size: number(0), packed: number(1), lines: number(2), before: number(3), after: number(4), flags: uint32(number(5)),
		first: fromNano(int64(le.Uint64(fields[32:]))), last: fromNano(int64(le.Uint64(fields[40:]))), at: at,
	}
	if b.offset < 0 || b.size > maxBlock || b.packed > 2*maxBlock {
		return block{}, errNoEntry
	}
	return b, nil
}

// describe fills in what is in the block's bytes; step is the one that the
// first line is of.
func (b *block) describe(data []byte, step int) {
	b.size, b.before, b.after = len(data), step, step
	inside := b.flags&flagInside != 0
	for text := range bytes.Lines(data) {
		if inside {
			inside = false
			continue
		}
		l := parseLine(text)
		if n, ok := l.step(); ok {
			b.after = n
			continue
		}
		if !l.output() {
			continue
		}
		b.lines++
		if at := parseStamp(l.stamp); !at.IsZero() {
			if b.first.IsZero() || at.Before(b.first) {
				b.first = at
			}
			if at.After(b.last) {
				b.last = at
			}
		}
	}
}

func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
