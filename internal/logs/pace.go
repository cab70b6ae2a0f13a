package logs

import "time"

// A kubelet that still gives an old file when it has begun two new ones goes on
// with the newest, and says nothing. It begins one when a log is longer than
// 10 MiB and not more often than every few seconds. So where lines that follow
// each other lie that far apart, the file between them may be missing, if the
// kubelet was late: with the first of them, by as much, as it had more to give
// than it could; or with the second, as it noticed late that there are new files.
// A program that was silent for that long looks the same, but nobody is late then.
const (
	rotatable  = 8 << 20         // bytes that a log has before it is rotated, at least
	shortCycle = 3 * time.Second // between two rotations: what a kubelet can be set to, at least
	clockSkew  = time.Second     // of a node against this machine
	late       = 100 * time.Millisecond
	lastWords  = 10 * time.Second // from the last line that came to the end of a program that wrote until then, at most; its node may have much to do
)

// pace is how a log's streams come in.
type pace struct {
	opened  time.Time     // the stream
	read    int64         // bytes of all streams
	arrived time.Time     // the last line
	prompt  time.Duration // the least that a line took to arrive, which has the clocks' difference in it
	timed   bool
	ended   time.Time // the program, by its node's clock; zero: nobody said
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

// skipped reports whether a file may have been left out between two lines of one
// stream, of which the later one arrives now. What was there when the stream was
// opened was in one file.
func (p *pace) skipped(from, to, arrived, now time.Time) bool {
	if p.read < rotatable || to.Sub(from) < shortCycle || !to.After(p.opened) {
		return false
	}
	return p.behind(from, to, arrived) || p.timed && now.Sub(to)-p.prompt >= late
}

// parted reports whether a file may have been left out between the end of a
// stream and the next stream, of another file. A stream that was not late would
// have gone over to that file itself.
func (p *pace) parted(from, to time.Time) bool {
	return p.read >= rotatable && to.Sub(from) >= shortCycle
}

// endedIn reports whether a program may have ended while its log went over from
// a file to a new one, of which nothing came. A kubelet that is told of the new
// file leaves the old one at once, and the runtime has more to write to it: what
// it holds. A program that ended long after the last line that came had nothing
// more to say.
func (p *pace) endedIn(last time.Time) bool {
	return p.read >= rotatable && !p.ended.IsZero() && p.ended.Sub(last) < lastWords
}

// took takes in how long a line of now took.
func (p *pace) took(stamp, now time.Time) {
	if d := now.Sub(stamp); !p.timed || d < p.prompt {
		p.prompt, p.timed = d, true
	}
}
