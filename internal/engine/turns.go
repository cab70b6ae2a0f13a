package engine

import (
	"math/rand/v2"
	"time"

	"github.com/berth-run/berth"
)

// A stream that follows a log costs two goroutines here, and a connection to
// its kubelet in the API server. So an infrastructure has at most streamsMost
// of them for logs that nobody reads. The other logs are read in turns: what is
// new since the last time, by a call that doesn't follow, and more rarely the
// longer there was nothing. What a turn comes too late for is what the kubelet
// has rotated away, or what was on a node that failed. So one that brings much
// has its log followed from then on, as has a pod that is being deleted.
const (
	streamsMost = 512
	turnEvery   = 10 * time.Second // between the turns of a log that grows
	turnMost    = 2 * time.Minute  // between those of one that doesn't
	turnLimit   = logLimit / 2     // turns at once, which leave room for logs of ended attempts
	loud        = 1 << 20          // bytes that are much
)

// turns say when a log that nobody reads is read next.
type turns struct {
	resting bool          // a timer runs
	due     bool          // it is time
	begun   bool          // some of the log may be stored
	pause   time.Duration // until the next; 0 before the first
}

// rests reports whether the log of an attempt is left alone for now.
func (l *loop) rests(id string, a *berth.Attempt, c *calls) bool {
	t := &c.turns
	if a.Outcome != nil || a.Removed || c.wanted || t.due {
		t.due = false
		return false
	}
	if t.resting {
		return true
	}
	t.resting = true
	pause := t.pause
	if pause == 0 {
		pause = unfollowed(len(l.open))
	}
	pod := a.Pod
	l.after(pause, func(s *step) {
		if c := s.calls[pod]; c != nil {
			c.turns.resting, c.turns.due = false, true
			s.again(id)
		}
	})
	return true
}

// taken takes in what a turn brought; some of the bytes may have come before.
func (c *calls) taken(bytes int64, grew bool) {
	switch t := &c.turns; {
	case bytes >= loud:
		c.wanted = true
	case grew || t.pause == 0:
		t.pause = spread(turnEvery)
	default:
		t.pause = min(2*t.pause, spread(turnMost))
	}
}

// spread keeps turns that began together from coming together again.
func spread(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2)
}

// unfollowed is how long a program whose output nobody reads may have run
// before its log is followed: a moment where few tasks run, up to ten seconds
// where many do, of which most may end within that time and then need one call
// instead of two.
func unfollowed(running int) time.Duration {
	return min(time.Duration(running)*10*time.Millisecond, 10*time.Second)
}

// wanted has the log of an attempt followed from now on: somebody reads it, or
// its pod will not be there for long.
func (s *step) wanted(id, pod string) {
	c := s.calls[pod]
	if c == nil || c.wanted {
		return // it has no pod yet, or none any more
	}
	c.wanted = true
	s.again(id)
}
