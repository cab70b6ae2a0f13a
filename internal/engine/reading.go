package engine

import (
	"context"
	"time"

	"github.com/berth-run/berth"
)

// catchUp is how long a reader who doesn't follow waits at most for what the
// program has printed by now to be stored.
const catchUp = 5 * time.Second

// LogsOf is the log of the attempt that a query means.
type LogsOf struct {
	Attempt int         // 0: the task ended before its first
	Done    func() bool // says that no more will be stored
	Behind  bool        // the program has ended, and not all that it printed is stored yet
}

// Logs returns the log that a query means: with follow once there is one, and
// without once what the program has printed by now is stored, where that can be
// had in time.
func (e *Engine) Logs(ctx context.Context, id string, attempt int, follow bool) (LogsOf, error) {
	changed, stop := e.hub.watch(id)
	defer stop()
	until := ctx
	if !follow {
		var cancel context.CancelFunc
		until, cancel = context.WithTimeout(ctx, catchUp)
		defer cancel()
	}
	fresh := false
	for {
		life, err := e.life(ctx, id)
		if err != nil {
			return LogsOf{}, err
		}
		number := attempt
		if number == 0 {
			number = len(life.Attempts)
		}
		if number > len(life.Attempts) && (life.Task.State.Terminal() || !follow) {
			return LogsOf{}, berth.Errorf(berth.CodeNotFound, "task %s has no attempt %d; it has %d", id, number, len(life.Attempts))
		}
		if number > 0 && number <= len(life.Attempts) {
			a := &life.Attempts[number-1]
			of := LogsOf{number, func() bool {
				life, err := e.life(ctx, id)
				return err != nil || len(life.Attempts) < number || life.Attempts[number-1].Logs != berth.LogsOpen
			}, a.Outcome != nil && a.Logs == berth.LogsOpen}
			l := e.loop(life.Task.Infrastructure)
			switch {
			case a.Logs != berth.LogsOpen || l == nil:
				return of, nil
			case follow:
				l.inbox.post(func(s *step) { s.wanted(id, a.Pod) })
				return of, nil
			case l.health.Load().State != berth.InfraReady, until.Err() != nil:
				return of, nil
			case a.Outcome == nil && (fresh || a.StartedAt.IsZero()):
				return of, nil
			case a.Outcome == nil:
				fresh = true
				l.freshen(until, id, a.Pod)
				continue // it may have ended meanwhile
			}
		} else if life.Task.State.Terminal() || !follow {
			return LogsOf{Done: func() bool { return true }}, nil
		}
		select {
		case <-changed:
		case <-until.Done():
			if ctx.Err() != nil {
				return LogsOf{}, ctx.Err()
			}
		case <-e.ctx.Done():
			return LogsOf{}, berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding)
		}
	}
}

// freshen has what a log has by now read, where no stream brings it anyway, and
// waits for that.
func (l *loop) freshen(ctx context.Context, id, pod string) {
	read := make(chan struct{})
	l.inbox.post(func(s *step) {
		c := s.calls[pod]
		if c == nil || c.follower != nil && !c.follower.turn || s.life(id) == nil {
			close(read)
			return
		}
		c.asked = append(c.asked, read)
		c.turns.due = true
		s.again(id)
	})
	select {
	case <-read:
	case <-ctx.Done():
	}
}
