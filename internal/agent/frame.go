package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// A frame is a line of the log that is the agent's and not the program's:
//
//	\x1eberth NONCE result BASE64    a piece of a completion
//	\x1eberth NONCE step NUMBER      what follows is of that step (0: of none)
//	\x1eberth NONCE streams 1        what is of stderr is marked: see StderrMark
//
// The nonce is of the pod, so that a program does not make one by accident.
const frameMark = "\x1eberth "

// FrameKind tells frames apart.
type FrameKind string

const (
	FrameResult FrameKind = "result"
	FrameStep   FrameKind = "step"

	FrameStreams FrameKind = "streams"
)

// frameSize keeps a frame's line below 4096 bytes, which a pipe takes whole however many write into it.
const frameSize = 2900

// Frames encodes a block as lines for the end of the log.
func Frames(nonce string, block []byte) []byte {
	var out bytes.Buffer
	for len(block) > 0 {
		n := min(frameSize, len(block))
		fmt.Fprintf(&out, "%s%s %s %s\n", frameMark, nonce, FrameResult, base64.StdEncoding.EncodeToString(block[:n]))
		block = block[n:]
	}
	return out.Bytes()
}

// StepFrame marks where the output of a step begins.
func StepFrame(nonce string, number int) []byte {
	return fmt.Appendf(nil, "%s%s %s %d\n", frameMark, nonce, FrameStep, number)
}

// StreamsFrame is the first line of a log whose lines of stderr are marked.
func StreamsFrame(nonce string) []byte {
	return fmt.Appendf(nil, "%s%s %s 1\n", frameMark, nonce, FrameStreams)
}

// StderrMark begins each line of stderr, where an order says so. A part of the
// nonce is enough to tell it from what a program writes by accident.
func StderrMark(nonce string) []byte {
	return []byte("\x1e" + nonce[:min(len(nonce), 12)] + "2")
}

// CutLine parts a line of a log into its time, what parts it from the rest, and
// the rest. A driver that knows the streams has '>' (stdout) and '^' (stderr) in
// place of the space.
func CutLine(line []byte) (stamp []byte, sep byte, content []byte, ok bool) {
	if i := bytes.IndexAny(line[:min(len(line), 40)], " >^"); i >= 0 {
		return line[:i], line[i], line[i+1:], true
	}
	return nil, 0, nil, false
}

// ParseFrame reads a line of a log as a frame of that nonce.
func ParseFrame(nonce string, line []byte) (kind FrameKind, value string, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(frameMark+nonce+" "))
	if !ok {
		return "", "", false
	}
	k, v, ok := bytes.Cut(bytes.TrimRight(rest, "\r\n"), []byte(" "))
	return FrameKind(k), string(v), ok
}

// StepNumber reads the value of a step frame.
func StepNumber(value string) (int, bool) {
	n, err := strconv.Atoi(value)
	return n, err == nil && n >= 0
}

// Collector puts a completion together from the frames of a log.
type Collector struct {
	nonce string
	block []byte
}

// NewCollector collects the frames of a nonce.
func NewCollector(nonce string) *Collector { return &Collector{nonce: nonce} }

// Add takes in a line of the log, without its time, and reports whether it was a frame.
func (c *Collector) Add(line []byte) bool {
	kind, value, ok := ParseFrame(c.nonce, line)
	if ok && kind == FrameResult {
		if piece, err := base64.StdEncoding.DecodeString(value); err == nil {
			if c.block = append(c.block, piece...); len(c.block) > 2*maxBlock {
				c.block = append(c.block[:0], c.block[len(c.block)-maxBlock:]...)
			}
		}
	}
	return ok
}

// Completion returns what was collected, if it is what the message said.
func (c *Collector) Completion(b *Block) (*Completion, error) {
	// A log that was read twice in part has the block at its end all the same.
	if len(c.block) > b.Size {
		c.block = c.block[len(c.block)-b.Size:]
	}
	if len(c.block) != b.Size || digest(c.block) != b.SHA256 {
		return nil, fmt.Errorf("the log holds %d of the %d bytes of the report", len(c.block), b.Size)
	}
	var completion Completion
	if err := json.Unmarshal(c.block, &completion); err != nil {
		return nil, fmt.Errorf("the report in the log can't be read: %w", err)
	}
	return &completion, nil
}

// ReadBlock finds a completion in a log whose lines begin with a time and a
// space, as clusters give them.
func ReadBlock(r io.Reader, nonce string, b *Block) (*Completion, error) {
	c := NewCollector(nonce)
	if err := eachLine(r, func(line []byte) {
		if _, _, content, ok := CutLine(line); ok {
			c.Add(content)
		}
	}, func() error { return nil }); err != nil {
		return nil, err
	}
	return c.Completion(b)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
