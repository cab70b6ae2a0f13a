package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// endOfLines is where the last whole line ends; where the log is complete, its end.
func (s *source) endOfLines() (int64, error) {
	if s.plain == nil {
		return s.sealed.end(), nil
	}
	end, err := s.plain.end()
	if err != nil {
		return 0, err
	}
	for size := int64(4 << 10); end > s.plain.base; size *= 4 {
		start := max(s.plain.base, end-size)
		data := make([]byte, end-start)
		if _, err := s.plain.readAt(data, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		if start == s.plain.base {
			break
		}
	}
	return s.plain.base, nil
}

// gather collects the blocks of a stretch of a log: those that are sealed as
// they are, others made of what is plain or of what is left of them.
func (s *Store) gather(ctx context.Context, sh *shipment, local *source, from, end int64, complete bool) ([]block, error) {
	begin, _ := local.begin()
	var blocks []block
	step, inside := 0, false
	pack := func(at int64, data []byte) error {
		b := block{offset: at}
		if inside {
			b.flags |= flagInside
		}
		b.describe(data, step)
		err := s.codec.pack(&b, data, func(packed []byte) error {
			b.file, b.at = bytes.NewReader(bytes.Clone(packed[entrySize:])), -int64(entrySize)
			return nil
		})
		blocks = append(blocks, b)
		step, inside = b.after, data[len(data)-1] != '\n'
		return err
	}
	at := from
	if from < begin {
		others, err := s.remoteBlocks(ctx, sh.parts, begin)
		if err != nil {
			return nil, err
		}
		for i := range others {
			b := &others[i]
			switch {
			case b.end() <= from || b.flags&flagEnd != 0:
			case b.hidden > 0:
				data, err := (&sealed{}).read(b, s.codec)
				if errors.Is(err, errDamaged) {
					continue
				}
				if err != nil {
					return nil, err
				}
				if len(data) > 0 {
					step = b.before
					if err := pack(b.offset, data); err != nil {
						return nil, err
					}
				}
			default:
				blocks = append(blocks, *b)
				step = b.after
			}
		}
		at = begin
	} else if n := len(sh.parts); n > 0 {
		for i := n - 1; i >= 0; i-- {
			if sh.parts[i].offset < from {
				var err error
				if step, err = s.stepAt(ctx, &sh.parts[i]); err != nil {
					return nil, err
				}
				break
			}
		}
	}
	for at < end {
		if at < local.sealedEnd() {
			i := local.sealed.find(at)
			b := local.sealed.blocks[i]
			if b.offset > at {
				at = b.offset // what is missing is found so by who reads it
			}
			if b.offset == at && b.end() <= end {
				b.file = local.sealed.file
				blocks = append(blocks, b)
				at, step, inside = b.end(), b.after, false
				continue
			}
			data, err := local.read(i)
			if err == nil {
				step = b.before
				err = pack(at, data[at-b.offset:min(b.end(), end)-b.offset])
			}
			if err != nil && !errors.Is(err, errDamaged) {
				return nil, err
			}
			at = min(b.end(), end)
			continue
		}
		data := make([]byte, min(s.blockSize, end-at))
		if _, err := local.plain.readAt(data, at); err != nil {
			return nil, err
		}
		if i := bytes.LastIndexByte(data, '\n') + 1; i > 0 && at+int64(len(data)) < end {
			data = data[:i]
		}
		if err := pack(at, data); err != nil {
			return nil, err
		}
		at += int64(len(data))
	}
	if complete {
		blocks = append(blocks, block{offset: end, before: step, after: step, flags: flagEnd, file: bytes.NewReader(nil), at: -int64(entrySize)})
	}
	return blocks, nil
}

// put stores blocks as an object.
func (s *Store) put(ctx context.Context, key string, blocks []block) error {
	var index []byte
	size := int64(0)
	frames := make([]io.Reader, 0, len(blocks)+1)
	frames = append(frames, nil)
	for i := range blocks {
		b := &blocks[i]
		index = b.appendTo(index)
		size += int64(entrySize + b.packed)
		frames = append(frames, io.NewSectionReader(b.file, b.at+int64(entrySize), int64(b.packed)))
	}
	frames[0] = bytes.NewReader(index)
	content := io.MultiReader(frames...)
	if size <= inMemory { // what is sent again after a failure has to be there still
		data, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	return s.shared.Put(ctx, key, content)
}
