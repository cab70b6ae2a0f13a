package logs

import (
	"bytes"
	"hash/maphash"
	"time"
)

// repeats finds what one stream gives twice. A kubelet that follows a log opens
// its file anew for each file that it is told was begun, and by then may have
// opened that very file for the one before: it gives it from its beginning again.
// Such lines have the times that they had, and come in the order they came in.
type repeats struct {
	seed  maphash.Seed
	sums  []uint64 // of the lines that were stored of late, oldest first
	marks []mark   // where in sums the lines of a time are, roughly
	last  []byte   // the time of the last line
	next  int      // in sums: the line that is to come while lines come again; 0: none do
}

// mark is the time of the line at a place in sums.
type mark struct {
	at    time.Time
	place int
}

const (
	// remembered is how many lines are known again: a file's worth of a loud
	// program, eight bytes each.
	remembered = 128 << 10
	markEvery  = 1 << 10

	// disorder is how far lines of two streams, or of the end of a file and of
	// the beginning of the next one, are out of the order of their times.
	disorder = time.Second
)

// opened says that a stream begins, whose first lines are told from what is
// stored in another way; see seam.
func (r *repeats) opened() { r.next = 0 }

// fresh returns the lines of a batch, all of them whole and with times, that are
// not what came before.
func (r *repeats) fresh(batch []byte) []byte {
	out, dropped := batch[:0:0], false
	begin, end := 0, 0 // what is fresh since the last line that isn't
	for line := range bytes.Lines(batch) {
		if r.again(line) {
			out, dropped = append(out, batch[begin:end]...), true
			begin = end + len(line)
		}
		end += len(line)
	}
	if !dropped {
		return batch
	}
	return append(out, batch[begin:]...)
}

// again takes a line in, and reports whether it came before.
func (r *repeats) again(line []byte) bool {
	stamp, sum := r.parse(line)
	if r.next > 0 {
		if r.next < len(r.sums) && r.sums[r.next] == sum {
			r.next++
			return true
		}
		r.next = 0
	}
	if before(stamp, r.last) {
		if place := r.find(sum, parseStamp(stamp)); place >= 0 {
			r.next = place + 1
			return true
		}
	}
	r.add(stamp, sum)
	return false
}

// note takes in a line that is stored.
func (r *repeats) note(line []byte) { r.add(r.parse(line)) }

func (r *repeats) parse(line []byte) (stamp []byte, sum uint64) {
	if len(r.sums) == 0 {
		r.seed = maphash.MakeSeed()
	}
	return parseLine(line).stamp, maphash.Bytes(r.seed, line)
}

func (r *repeats) add(stamp []byte, sum uint64) {
	if len(r.sums) == 2*remembered {
		r.forget()
	}
	if len(r.sums)%markEvery == 0 {
		r.marks = append(r.marks, mark{parseStamp(stamp), len(r.sums)})
	}
	r.sums = append(r.sums, sum)
	r.last = append(r.last[:0], stamp...)
}

// find returns where a line of a time is; -1: it isn't known.
func (r *repeats) find(sum uint64, at time.Time) int {
	for place, m := len(r.sums)-1, len(r.marks)-1; place >= 0; place-- {
		if r.sums[place] == sum {
			return place
		}
		if m >= 0 && place == r.marks[m].place {
			if r.marks[m].at.Before(at.Add(-disorder)) {
				return -1
			}
			m--
		}
	}
	return -1
}

// forget drops the older half.
func (r *repeats) forget() {
	r.sums = append(r.sums[:0], r.sums[remembered:]...)
	marks := r.marks[:0]
	for _, m := range r.marks {
		if m.place >= remembered {
			marks = append(marks, mark{m.at, m.place - remembered})
		}
	}
	r.marks = marks
}

// before reports whether a time is before another; both as they are written.
func before(a, b []byte) bool {
	if len(a) == len(b) { // a kubelet writes nine digits and Z
		return bytes.Compare(a, b) < 0
	}
	return len(b) > 0 && parseStamp(a).Before(parseStamp(b))
}
