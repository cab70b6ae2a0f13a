package logs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/objects"
)

// In an object store a log is a folder of parts, each an object with whole
// lines of it: the entries of its blocks, which together are the index, and
// behind them the blocks' frames. Any zstd reads it. Its name says what is in
// it, so that a list of the folder tells where everything is:
//
//	EPOCH.SEQUENCE.OFFSET-END.BLOCKS.SERVER[.end]
//
// all in hexadecimal. A server that takes up a log begins a new epoch. A part
// counts from its offset on in place of those before it in the order of names:
// so what a server that was taken for dead still sends changes nothing, parts
// can be merged, and a log goes on after a line that was stored half.
type part struct {
	epoch, sequence int
	offset, end     int64
	blocks          int
	server          string
	complete        bool // the log ends with it

	until    int64 // from here on another part counts
	key      string
	bytes    int64 // of the object
	modified time.Time
	after    int // step that what follows is of; -1 where that is not known yet
}

func (p *part) name() string {
	name := fmt.Sprintf("%06x.%06x.%012x-%012x.%x.%s", p.epoch, p.sequence, p.offset, p.end, p.blocks, p.server)
	if p.complete {
		name += ".end"
	}
	return name
}

// parsePart reads the name of a part.
func parsePart(o objects.Object, name string) (part, bool) {
	p := part{key: o.Key, bytes: o.Size, modified: o.Modified, after: -1}
	fields := strings.Split(name, ".")
	if len(fields) == 6 && fields[5] == "end" {
		p.complete, fields = true, fields[:5]
	}
	if len(fields) != 5 || fields[4] == "" {
		return p, false
	}
	offset, end, ok := strings.Cut(fields[2], "-")
	var failed error
	number := func(text string) int64 {
		n, err := strconv.ParseUint(text, 16, 62)
		failed = errors.Join(failed, err)
		return int64(n)
	}
	p.epoch, p.sequence, p.offset, p.end, p.blocks, p.server = int(number(fields[0])), int(number(fields[1])), number(offset), number(end), int(number(fields[3])), fields[4]
	p.until = p.end
	return p, ok && failed == nil && p.offset <= p.end && p.bytes >= int64(p.blocks)*int64(entrySize)
}

func (p *part) compare(other *part) int {
	return cmp.Or(cmp.Compare(p.epoch, other.epoch), cmp.Compare(p.sequence, other.sequence), cmp.Compare(p.server, other.server))
}

// counting returns the parts that count, one behind the other; the others are
// of no use any more.
func counting(parts []part) (count, obsolete []part) {
	slices.SortFunc(parts, func(a, b part) int { return a.compare(&b) })
	for _, p := range parts {
		p.until = p.end
		for n := len(count); n > 0 && count[n-1].offset >= p.offset; n-- {
			obsolete = append(obsolete, count[n-1])
			count = count[:n-1]
		}
		if n := len(count); n > 0 {
			count[n-1].until = min(count[n-1].until, p.offset)
		}
		count = append(count, p)
	}
	return count, obsolete
}

// whole reports whether parts are all of a log.
func whole(parts []part) bool {
	n := len(parts)
	return n > 0 && parts[n-1].complete && parts[n-1].until == parts[n-1].end
}

func endOf(parts []part) int64 {
	if n := len(parts); n > 0 {
		return parts[n-1].until
	}
	return 0
}

// folder is where the parts of a log are.
func folder(task string, attempt int) string {
	return task[max(0, len(task)-2):] + "/" + task + "." + strconv.Itoa(attempt) + "/"
}

// parts lists those of a log.
func (s *Store) parts(ctx context.Context, task string, attempt int) ([]part, error) {
	prefix := folder(task, attempt)
	var all []part
	for o, err := range s.shared.List(ctx, prefix, false) {
		if err != nil {
			return nil, err
		}
		if p, ok := parsePart(o, strings.TrimPrefix(o.Key, prefix)); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// atOnce is how large an object may be and be read as a whole.
const atOnce = 256 << 10

// index returns the blocks of a part, as far as it counts.
func (s *Store) index(ctx context.Context, p *part) ([]block, error) {
	length := int64(p.blocks) * int64(entrySize)
	if p.bytes <= atOnce {
		length = p.bytes
	}
	data, err := readRange(ctx, s.shared, p.key, 0, length)
	if err != nil {
		return nil, err
	}
	object := &remoteObject{ctx: ctx, shared: s.shared, key: p.key}
	if length == p.bytes {
		object.data = data
	}
	var blocks []block
	at := int64(p.blocks) * int64(entrySize)
	for i := range p.blocks {
		b, err := parseBlock(data[i*entrySize:], at-int64(entrySize))
		if err != nil || at+int64(b.packed) > p.bytes {
			return nil, berth.Errorf(berth.CodeInternal, "a stored log is damaged: %s in %s", p.key, s.shared)
		}
		at += int64(b.packed)
		b.file = object
		p.after = b.after
		if b.offset >= p.until && (p.until < p.end || b.size > 0) {
			break
		}
		if over := b.end() - p.until; over > 0 {
			b.hidden = int(over)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func readRange(ctx context.Context, from objects.Store, key string, offset, length int64) ([]byte, error) {
	if length == 0 {
		return nil, nil
	}
	r, err := from.Range(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, length)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = berth.Errorf(berth.CodeInternal, "a stored log is damaged: %s in %s is too short", key, from)
		}
		return nil, err
	}
	return data, nil
}

// remoteObject reads frames of a part.
type remoteObject struct {
	ctx    context.Context
	shared objects.Store
	key    string
	data   []byte // all of it, where it is small
}

func (o *remoteObject) ReadAt(p []byte, offset int64) (int, error) {
	if o.data != nil {
		return bytes.NewReader(o.data).ReadAt(p, offset)
	}
	data, err := readRange(o.ctx, o.shared, o.key, offset, int64(len(p)))
	return copy(p, data), err
}

// remoteBlocks returns all blocks of parts that count, up to an offset.
func (s *Store) remoteBlocks(ctx context.Context, parts []part, until int64) ([]block, error) {
	var all []block
	for i := range parts {
		p := parts[i]
		if p.offset >= until && p.end > p.offset {
			break
		}
		p.until = min(p.until, until)
		blocks, err := s.index(ctx, &p)
		if err != nil {
			return nil, err
		}
		if n := len(blocks); n > 0 && blocks[n-1].flags&flagEnd != 0 && (i+1 < len(parts) || until <= p.end) {
			blocks = blocks[:n-1] // it went on
		}
		all = append(all, blocks...)
	}
	return all, nil
}
