package engine

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/crash"
)

// follower copies the log of one attempt from its pod into the log store.
type follower struct {
	over  context.Context // ends when the attempt is known to have ended
	ended <-chan struct{} // of over
	end   func()
	at    time.Time // when the program ended; once ended is closed

	gone    bool   // the pod is, so there is nothing left to read
	turn    bool   // reads what is there, and does not follow
	grew    bool   // a turn brought something new
	nonce   string // of the agent's frames; empty without an agent
	waiting bool   // for the container's own end

	read atomic.Int64 // bytes of streams that followed, and of the turn
}

func newFollower(turn bool) *follower {
	f := &follower{turn: turn}
	f.over, f.end = context.WithCancel(context.Background())
	f.ended = f.over.Done()
	return f
}

// quiet is how long a container may go on after its agent told the outcome.
const quiet = 5 * time.Second

// endLog tells a follower that no more output will come: at the attempt's end,
// but where an agent told that, at the end of its container, which comes later.
func (l *loop) endLog(a *berth.Attempt, f *follower) {
	if isClosed(f.ended) {
		return
	}
	f.at = a.EndedAt
	if a.AgentSeq == 0 || !a.EndSeen.IsZero() || a.Removed {
		f.end()
		return
	}
	if !f.waiting {
		f.waiting = true
		l.after(quiet, func(*step) { f.end() })
	}
}

// A stream that ended before its container was seen to end most likely ended
// because of it, which is waited for so long before it is opened again. Where
// that turns out wrong again and again the server is asked less often.
const (
	afterEnd     = 2 * time.Second
	afterEndMost = 30 * time.Second
)

// hiccup is how long a kubelet that gave nothing of a log is left alone before it
// is asked once more.
const hiccup = time.Second

// late is how long the last that a program wrote may take from its runtime to
// the log's file: a node tells of the end first, or of a short program before
// there is any log.
const late = 250 * time.Millisecond

const gone = "the pod is gone"

// follow begins to copy the log of an attempt, if that isn't done already.
func (l *loop) follow(ctx context.Context, life *berth.Life, a *berth.Attempt) {
	c := l.call(a.Pod)
	if c.follower != nil || l.rests(life.Task.ID, a, c) {
		return
	}
	over := a.Outcome != nil
	f := newFollower(!over && (len(c.asked) > 0 || !c.wanted && l.streams >= l.streamsMost))
	stream := !over && !f.turn
	if stream {
		l.streams++
	}
	f.gone = a.Removed
	if life.Task.Spec.Agent() || life.Task.Orphan {
		f.nonce = l.engine.agents.Nonce(a.Pod)
	}
	c.follower = f
	if over {
		l.endLog(a, f)
	}
	id, number, pod, driver, fresh := life.Task.ID, a.Number, a.Pod, l.driver, c.fresh && !c.turns.begun
	c.turns.begun = true
	done := l.works(&l.engine.wg)
	go func() {
		defer done()
		state := l.copyLog(ctx, driver, f, id, number, pod, fresh)
		if ctx.Err() != nil {
			return // the next process goes on
		}
		l.inbox.post(func(s *step) {
			c := s.call(pod)
			c.follower = nil
			for _, read := range c.asked {
				close(read)
			}
			c.asked = nil
			if stream {
				s.streams--
			}
			if state == berth.LogsOpen {
				c.taken(f.read.Load(), f.grew)
				s.again(id)
				return
			}
			s.apply(id, func(l *berth.Life) []berth.Event { l.LogsKept(number, state); return nil })
		})
	}()
}

// copyLog copies until all of the log is stored, or what is missing can't be
// had: then a gap is noted. A turn leaves the log open.
func (l *loop) copyLog(ctx context.Context, driver Driver, f *follower, id string, number int, pod string, fresh bool) berth.LogState {
	if f.turn {
		select {
		case l.turnSlots <- struct{}{}:
			defer func() { <-l.turnSlots }()
		case <-f.ended: // then it is more than a turn
		case <-ctx.Done():
			return berth.LogsOpen
		}
	}
	w, err := l.engine.logs.Append(id, number, fresh)
	for wait := time.Second; err != nil; wait = min(2*wait, 15*time.Second) {
		l.engine.log.Error("cannot keep a log; trying again", "task", id, "error", err)
		if !sleep(ctx, wait) {
			return berth.LogsOpen
		}
		w, err = l.engine.logs.Append(id, number, fresh)
	}
	defer w.Close()
	state := l.copyAll(ctx, driver, f, w, pod)
	crash.Point("engine.log-copied")
	if state != berth.LogsOpen {
		if err := w.Seal(); err != nil {
			l.engine.log.Error("a log stays as it is, uncompressed", "task", id, "error", err)
		}
		crash.Point("engine.log-sealed")
	}
	return state
}

// copyAll is copyLog with a writer.
func (l *loop) copyAll(ctx context.Context, driver Driver, f *follower, w LogWriter, pod string) berth.LogState {
	if f.gone {
		return incomplete(w, gone, w.Last())
	}
	var deadline time.Time // set at the first failure after the end
	idle := afterEnd
	// Nothing is what a kubelet gives that ends at that moment, too: an API
	// server passes it on as an empty log. So it has to say that twice, also
	// where not even what is stored came once more; and some time apart, less if
	// one of them was a stream that had been open before the end.
	emptyBefore, streamed := false, false
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		endedBefore, last := isClosed(f.ended), w.Last()
		if endedBefore {
			w.Ended(f.at)
		}
		err := l.copyOnce(ctx, driver, f, w, pod)
		if ctx.Err() != nil {
			return berth.LogsOpen
		}
		if errors.Is(err, errLeftBehind) {
			continue
		}
		if f.turn && !isClosed(f.ended) {
			f.grew = w.Last() != last
			return berth.LogsOpen // what it could not read is the next one's
		}
		if !l.mayAct() {
			if !sleep(ctx, wait) {
				return berth.LogsOpen
			}
			continue
		}
		if err == nil {
			if endedBefore {
				if (w.Last().IsZero() || w.Unjoined()) && !emptyBefore {
					emptyBefore = true
					apart := hiccup
					if streamed && !w.Unjoined() {
						apart = late
					}
					if !sleep(ctx, apart) {
						return berth.LogsOpen
					}
					continue
				}
				return berth.LogsComplete
			}
			streamed = true
			select {
			case <-f.ended:
				// Once more: a stream whose kubelet ended looks like one that came
				// to its end, and one of an old file ends without what a kubelet
				// wrote to a new one meanwhile.
				continue
			case <-ctx.Done():
				return berth.LogsOpen
			case <-time.After(idle):
				// It still runs: the connection was cut.
				if idle = min(2*idle, afterEndMost); w.Last() != last {
					idle = afterEnd
				}
				continue
			}
		}
		if !endedBefore && isClosed(f.ended) {
			continue // the rest is read at once
		}
		if endedBefore {
			now := l.engine.now()
			var refusal *Refusal
			// What there is no room for now can be had as long as the pod is there.
			unreachable := errors.As(err, &refusal) && refusal.Kind == RefusedUnreachable || berth.CodeOf(err) == berth.CodeExhausted
			switch {
			case errors.As(err, &refusal) && refusal.Kind == RefusedNotFound:
				return incomplete(w, gone, w.Last())
			case deadline.IsZero() || unreachable:
				deadline = now.Add(logsDeadline)
			case now.After(deadline):
				return incomplete(w, err.Error(), w.Last())
			}
		}
		if !sleep(ctx, wait) {
			return berth.LogsOpen
		}
	}
}

// lingering is how long a stream may bring nothing after its container ended.
// Then what is left is read by a call that doesn't follow: some servers never
// end the stream of a container that has ended. That call has nothing of a log
// file that was rotated away meanwhile, which the stream would still bring; a
// log that is long enough for that is given more time.
func lingering(read int64) time.Duration {
	if read < rotatable {
		return 300 * time.Millisecond
	}
	return 5 * time.Second
}

// rotatable is how long a log has to be for the kubelet to begin a new file: it
// does at 10 MiB unless it is told otherwise (containerLogMaxSize).
const rotatable = 8 << 20

// counted counts what was read of a stream.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// copyOnce copies one stream: one that follows while the container runs.
func (l *loop) copyOnce(ctx context.Context, driver Driver, f *follower, w LogWriter, pod string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	follow := !f.turn && !isClosed(f.ended)
	if follow {
		// No goroutine waits for that: there may be thousands of streams.
		defer context.AfterFunc(f.over, func() {
			for before := int64(-1); f.read.Load() != before; {
				before = f.read.Load()
				if !sleep(ctx, lingering(before)) {
					return
				}
			}
			cancel()
		})()
	}
	if !follow {
		l.logSlots <- struct{}{}
		defer func() { <-l.logSlots }()
	}
	stream, err := driver.Logs(ctx, pod, w.Last(), follow)
	if err != nil {
		return err
	}
	defer func() { stream.Close() }()
	_, whole := stream.(WholeLog)
	var file *rotating
	if follow && !whole {
		file = newRotating(stream, func(last time.Time) (bool, bool) { return l.newestFile(ctx, driver, pod, last) }, cancel)
		stream = file
	}
	if l.engine.leases != nil {
		stream = heldStream{stream, l}
	}
	if follow || f.turn {
		stream = counted{stream, &f.read}
	}
	if f.nonce != "" {
		stream = agent.Filter(stream, f.nonce, w.Streams())
	}
	if err := w.Copy(stream, !whole); err != nil || file == nil || !file.leftBehind() {
		return err
	}
	return errLeftBehind
}

func incomplete(w LogWriter, why string, since time.Time) berth.LogState {
	from := "its beginning"
	if !since.IsZero() {
		from = since.UTC().Format(time.RFC3339Nano)
	}
	_ = w.Gap("output from " + from + " to its end could not be read: " + why)
	return berth.LogsIncomplete
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
