package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth"
)

// sealed is the compressed part of a log and its index.
type sealed struct {
	file   *os.File // nil where all blocks are of parts that other servers can read
	blocks []block
	size   int64 // of the file up to the end of the last whole block
}

// openSealed opens the compressed part of a log; nil where there is none.
func openSealed(path string, flag int) (*sealed, error) {
	file, err := os.OpenFile(path, flag, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "cannot open a stored log: %w", err)
	}
	s := &sealed{file: file}
	if err := s.refresh(); err != nil {
		file.Close()
		return nil, err
	}
	return s, nil
}

func (s *sealed) close() {
	if s != nil && s.file != nil {
		s.file.Close()
	}
}

// refresh takes in the entries that were appended. What is no entry is skipped:
// entries say at which place of the log they are, so what is missing shows.
func (s *sealed) refresh() error {
	if s.file == nil {
		return nil
	}
	info, err := s.file.Stat()
	if err != nil {
		return berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
	}
	var entry [entrySize]byte
	for at := s.size; at+int64(entrySize) <= info.Size(); {
		if _, err := s.file.ReadAt(entry[:], at); err != nil {
			return berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
		}
		b, err := parseBlock(entry[:], at)
		if err != nil || b.next() > info.Size() || b.offset < s.end() {
			if at, err = s.search(at+1, info.Size()); err != nil {
				return err
			}
			continue
		}
		s.blocks = append(s.blocks, b)
		at = b.next()
		s.size = at
	}
	return nil
}

// search finds the next place that may be an entry.
func (s *sealed) search(from, size int64) (int64, error) {
	mark := binary.LittleEndian.AppendUint32(nil, entryMagic)
	mark = binary.LittleEndian.AppendUint32(mark, uint32(entrySize-8))
	mark = append(mark, entryTag...)
	buf := make([]byte, 256<<10)
	for from < size {
		n, err := s.file.ReadAt(buf, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
		}
		if i := bytes.Index(buf[:n], mark); i >= 0 {
			return from + int64(i), nil
		}
		from += int64(max(1, n-len(mark)+1))
	}
	return size, nil
}

// end is the offset in the log where the sealed part ends.
func (s *sealed) end() int64 {
	if s == nil || len(s.blocks) == 0 {
		return 0
	}
	return s.blocks[len(s.blocks)-1].end()
}

// complete reports whether all of the log is sealed.
func (s *sealed) complete() bool {
	return s != nil && len(s.blocks) > 0 && s.blocks[len(s.blocks)-1].flags&flagEnd != 0
}

// prepend puts blocks of parts before those of the file, which win where both
// have something.
func (s *sealed) prepend(before []block) {
	if len(s.blocks) > 0 {
		for n := len(before); n > 0 && before[n-1].end() > s.blocks[0].offset; n-- {
			before = before[:n-1]
		}
	}
	s.blocks = append(slices.Clip(before), s.blocks...)
}

// find returns the index of the first block that ends behind an offset.
func (s *sealed) find(offset int64) int {
	if s == nil {
		return 0
	}
	low, high := 0, len(s.blocks)
	for low < high {
		if mid := (low + high) / 2; s.blocks[mid].end() > offset {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// errDamaged is a block whose bytes aren't what was written.
var errDamaged = errors.New("the block is damaged")

// read returns what a block holds. errDamaged when nobody can.
func (s *sealed) read(b *block, codec *codec) ([]byte, error) {
	if b.size == 0 {
		return nil, nil
	}
	packed := make([]byte, b.packed)
	if b.file != nil {
		if _, err := b.file.ReadAt(packed, b.at+int64(entrySize)); err != nil {
			return nil, err
		}
	} else if _, err := s.file.ReadAt(packed, b.at+int64(entrySize)); err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
	}
	data, err := codec.unpack(packed, b.size)
	if err != nil || len(data) != b.size {
		return nil, errDamaged
	}
	return data[:b.size-b.hidden], nil
}

// codec compresses and decompresses for all logs of a store: one block at a
// time, so that memory doesn't grow with the number of logs.
type codec struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
	turn    chan []byte // whose value is the encoder's buffer
}

func newCodec() (*codec, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithWindowSize(blockSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(2*maxBlock), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	c := &codec{encoder: encoder, decoder: decoder, turn: make(chan []byte, 1)}
	c.turn <- nil
	return c, nil
}

// pack calls fn with an entry and its frame, which are valid for the call.
func (c *codec) pack(b *block, data []byte, fn func([]byte) error) error {
	buf := <-c.turn
	defer func() { c.turn <- buf }()
	if cap(buf) < entrySize {
		buf = make([]byte, entrySize, blockSize/4)
	}
	buf = buf[:entrySize]
	if len(data) > 0 {
		buf = c.encoder.EncodeAll(data, buf)
	}
	b.packed = len(buf) - entrySize
	b.appendTo(buf[:0])
	return fn(buf)
}

func (c *codec) unpack(packed []byte, size int) ([]byte, error) {
	return c.decoder.DecodeAll(packed, make([]byte, 0, size))
}
