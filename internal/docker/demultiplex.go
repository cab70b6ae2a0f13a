package docker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// maxFrame bounds a frame: an Engine parts lines at 16 KiB.
const maxFrame = 16 << 20

// demultiplexer writes the frames of an Engine's log as lines "TIME>content\n"
// where they are of stdout, and "TIME^content\n" where they are of stderr.
// A frame is a line, or a part of one, which then ends without a newline; each
// has a time, and of the parts of a line only the first has it in the output.
// Where the other stream writes in between, the line goes on as another.
type demultiplexer struct {
	w io.Writer

	open  byte   // the stream, 1 or 2, whose line has not ended
	frame []byte // buffer

	stamp []byte // of the last frame
	same  int    // frames with that stamp, so far
	again int    // of these, how many come once more
}

// copy takes in one stream up to its end.
func (d *demultiplexer) copy(r io.Reader) error {
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err == io.EOF { //nolint:errorlint // ReadFull gives it as it is
			return nil
		} else if err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(header[4:])
		if header[0] > 3 || size > maxFrame {
			return fmt.Errorf("the log of a container is not in the form that an Engine gives")
		}
		if uint32(cap(d.frame)) < size {
			d.frame = make([]byte, size)
		}
		d.frame = d.frame[:size]
		if _, err := io.ReadFull(r, d.frame); err != nil {
			return err
		}
		if header[0] == 3 { // the Engine's own error
			return fmt.Errorf("the Engine can't give the log: %s", bytes.TrimSpace(d.frame))
		}
		if err := d.take(header[0], d.frame); err != nil {
			return err
		}
	}
}

// take writes one frame.
func (d *demultiplexer) take(stream byte, line []byte) error {
	stamp, content, timed := bytes.Cut(line, []byte(" "))
	if timed && stream == 1 {
		line[len(stamp)] = '>'
	} else if timed {
		line[len(stamp)] = '^'
	}
	if bytes.Equal(stamp, d.stamp) {
		if d.again > 0 {
			d.again--
			return nil
		}
		d.same++
	} else {
		d.stamp, d.same, d.again = append(d.stamp[:0], stamp...), 1, 0
	}
	switch d.open {
	case 0:
	case stream:
		line = content
	default:
		if _, err := d.w.Write([]byte("\n")); err != nil {
			return err
		}
	}
	d.open = stream
	if bytes.HasSuffix(line, []byte("\n")) {
		d.open = 0
	}
	_, err := d.w.Write(line)
	return err
}
