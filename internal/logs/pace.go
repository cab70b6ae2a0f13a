package logs

import "time"

// A kubelet that still gives an old file when it has begun two new ones goes on
// with the newest, and says nothing. It begins one when a log is longer than
// 10 MiB and not more often than every few seconds. So where a reader was that
// far behind, and lines that follow each other lie that far apart, the file
// between them may be missing. A program that was silent for that long looks
// the same, but a reader is not behind one that is silent.
const (
	rotatable  = 8 << 20         // bytes that a log has before it is rotated, at least
	shortCycle = 3 * time.Second // between two rotations: what a kubelet can be set to, at least
	clockSkew  = time.Second     // of a node against this machine
)

// pace is how a log's streams come in.
type pace struct {
	opened  time.Time // the stream
	read    int64     // bytes of all streams
	arrived time.Time // the last line
	now     func() time.Time
}

func (p *pace) clock() time.Time {
	if p.now != nil {
		return p.now()
	}
	return time.Now()
}

// behind reports whether so much lies between two lines, and the earlier one
// arrived so late, that a file between them may have been left out.
func (p *pace) behind(from, to, arrived time.Time) bool {
	apart := to.Sub(from)
	return p.read >= rotatable && apart >= shortCycle && arrived.Sub(from) >= apart-clockSkew
}

// skipped is behind for two lines of one stream. What was there when it was
// opened was in one file.
func (p *pace) skipped(from, to, arrived time.Time) bool {
	return to.After(p.opened) && p.behind(from, to, arrived)
}
