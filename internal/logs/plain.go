package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// plain is the newest part of a log, as text. Its first line says at which
// offset of the log it begins, unless that is 0.
type plain struct {
	file *os.File
	base int64 // the offset in the log of what follows the first line
	head int64 // bytes of the first line
}

// openPlain opens the text part of a log; nil where there is none.
func openPlain(path string, flag int) (*plain, error) {
	file, err := os.OpenFile(path, flag, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "cannot open a stored log: %w", err)
	}
	p := &plain{file: file}
	begin := make([]byte, len(baseMark)+21)
	n, _ := file.ReadAt(begin, 0)
	if text, _, ok := bytes.Cut(begin[:n], []byte("\n")); ok {
		if number, ok := strings.CutPrefix(string(text), baseMark); ok {
			if base, err := strconv.ParseInt(number, 10, 64); err == nil && base >= 0 {
				p.base, p.head = base, int64(len(text)+1)
			}
		}
	}
	return p, nil
}

func (p *plain) close() {
	if p != nil {
		p.file.Close()
	}
}

// readAt reads at an offset of the log.
func (p *plain) readAt(data []byte, offset int64) (int, error) {
	return p.file.ReadAt(data, offset-p.base+p.head)
}

// end is the offset in the log where it ends now.
func (p *plain) end() (int64, error) {
	info, err := p.file.Stat()
	if err != nil {
		return 0, berth.Errorf(berth.CodeInternal, "cannot read a stored log: %w", err)
	}
	return max(p.base, p.base+info.Size()-p.head), nil
}

// truncate ends it at an offset of the log, where writing goes on.
func (p *plain) truncate(offset int64) error {
	if err := p.file.Truncate(offset - p.base + p.head); err != nil {
		return err
	}
	_, err := p.file.Seek(0, 2)
	return err
}

// newPlain writes a text part that begins at an offset beside the one that is
// there, and puts it in its place at once.
func newPlain(path string, base int64, data []byte) (*plain, error) {
	file, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	head, err := fmt.Fprintf(file, "%s%d\n", baseMark, base)
	if err == nil {
		_, err = file.Write(data)
	}
	if err == nil {
		err = file.Sync()
	}
	crash.Point("logs.part-written")
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		file.Close()
		_ = os.Remove(path + ".new")
		return nil, err
	}
	return &plain{file: file, base: base, head: int64(head)}, nil
}
