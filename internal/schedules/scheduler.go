// Package schedules starts what is due again and again: tasks, calls and
// workflows, each time once, also where the process that does so dies.
package schedules

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/timetable"
)

// Store keeps schedules; see package store.
type Store interface {
	SchedulesOf(ctx context.Context, infrastructure string) ([]berth.ScheduleRecord, error)
	CommitSchedule(ctx context.Context, lease berth.Lease, owner, name string, state berth.ScheduleState) error
}

// Service starts what is due.
type Service interface {
	SubmitTask(ctx context.Context, submission berth.Submission) (berth.Task, error)
	Task(ctx context.Context, id string) (berth.Task, error)
	CancelTask(ctx context.Context, id string) (berth.Task, error)
	StartRun(ctx context.Context, submission berth.RunSubmission) (berth.Run, error)
	Run(ctx context.Context, id string) (berth.Run, error)
	CancelRun(ctx context.Context, id string) (berth.Run, error)
}

const (
	// lookEvery is how often schedules are looked at at least: other servers may
	// have changed them, and clocks may have been set.
	lookEvery = 10 * time.Second
	// againAfter is when something is tried again that failed, or waits.
	againAfter = 2 * time.Second
)

// Scheduler starts what is due of the infrastructures that it was given.
type Scheduler struct {
	store   Store
	service Service
	lease   func(infrastructure string) (berth.Lease, error)
	log     *slog.Logger
	ctx     context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex
	taken map[string]*looking // by infrastructure
}

// looking is one infrastructure whose schedules are looked at.
type looking struct {
	end   context.CancelFunc
	done  chan struct{}
	nudge chan struct{}
}

// New returns a Scheduler that starts nothing yet. lease gives the lease that is
// to be held for what is stored of an infrastructure; the zero one: none.
func New(store Store, service Service, lease func(infrastructure string) (berth.Lease, error), log *slog.Logger) *Scheduler {
	s := &Scheduler{store: store, service: service, lease: lease, log: log, taken: map[string]*looking{}}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

// Take begins to start what is due of an infrastructure.
func (s *Scheduler) Take(infrastructure string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[infrastructure] != nil || s.ctx.Err() != nil {
		return
	}
	ctx, end := context.WithCancel(s.ctx)
	l := &looking{end: end, done: make(chan struct{}), nudge: make(chan struct{}, 1)}
	s.taken[infrastructure] = l
	s.wg.Go(func() {
		defer close(l.done)
		s.look(ctx, infrastructure, l.nudge)
	})
}

// Drop leaves an infrastructure's schedules to another.
func (s *Scheduler) Drop(infrastructure string) {
	s.mu.Lock()
	l := s.taken[infrastructure]
	delete(s.taken, infrastructure)
	s.mu.Unlock()
	if l != nil {
		l.end()
		<-l.done
	}
}

// Nudge has the schedules of an infrastructure looked at now: one has changed.
func (s *Scheduler) Nudge(infrastructure string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.taken[infrastructure]; l != nil {
		select {
		case l.nudge <- struct{}{}:
		default:
		}
	}
}

// Close starts nothing any more.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.wg.Wait()
}

// look starts what is due until ctx ends.
func (s *Scheduler) look(ctx context.Context, infrastructure string, nudge <-chan struct{}) {
	for ctx.Err() == nil {
		wait := lookEvery
		records, err := s.store.SchedulesOf(ctx, infrastructure)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("cannot see which schedules there are; trying again", "infrastructure", infrastructure, "error", err)
			}
			wait = againAfter
		}
		for i := range records {
			next, err := s.attend(ctx, &records[i], time.Now())
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, berth.ErrFenced):
				return // another server's by now; it is told to Drop it
			case err != nil:
				s.log.Error("a schedule cannot start what is due; trying again", "schedule", records[i].Schedule.Name, "error", err)
				wait = min(wait, againAfter)
			case !next.IsZero():
				wait = min(wait, max(time.Until(next), 0))
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-nudge:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// attend starts what is due of one schedule, and returns when to look at it next.
func (s *Scheduler) attend(ctx context.Context, r *berth.ScheduleRecord, now time.Time) (time.Time, error) {
	schedule := &r.Schedule
	if schedule.Paused {
		return time.Time{}, nil
	}
	table, err := timetable.Parse(schedule.Cron, schedule.Timezone)
	if err != nil {
		return time.Time{}, err
	}
	due, next, missed := last(table, schedule, now)
	state := schedule.ScheduleState
	if missed && schedule.CatchUp != berth.CatchUpLast {
		state.LastAt, state.Note = &due, note("it was due at "+due.UTC().Format(time.RFC3339)+", when nobody was there to start it")
		return next, s.keep(ctx, schedule, state)
	}
	if due.IsZero() && state.Waiting == nil {
		return next, nil
	}
	ctx = berth.WithCaller(ctx, r.Caller)
	if state.Last != nil {
		goes, err := s.goesOn(ctx, *state.Last)
		if err != nil {
			return time.Time{}, err
		}
		if goes {
			return s.overlaps(ctx, schedule, due, next, now)
		}
	}
	if state.Waiting != nil { // what was due while the other went on
		due = *state.Waiting
	}
	id, err := s.begin(ctx, schedule, due)
	if err != nil && !berth.Lasting(err) {
		return time.Time{}, err
	}
	state.LastAt, state.Waiting, state.Note = latest(due, state.LastAt), nil, nil
	if err != nil {
		state.Note = note("it could not be started: " + err.Error())
	} else {
		state.Last = &id
	}
	return next, s.keep(ctx, schedule, state)
}

// last is the last time up to now at which a schedule was due and that was not
// attended to, zero where there is none; when it is due next; and whether the
// last time is so long ago that it was missed.
func last(table *timetable.Timetable, schedule *berth.Schedule, now time.Time) (due, next time.Time, missed bool) {
	from := schedule.From
	if schedule.LastAt != nil && schedule.LastAt.After(from) {
		from = *schedule.LastAt
	}
	if long := now.Add(-longAgo); from.Before(long) && schedule.CatchUp != berth.CatchUpLast {
		from = long // what was due before was missed
	}
	for next = table.Next(from); !next.IsZero() && !next.After(now); next = table.Next(next) {
		due = next
	}
	return due, next, !due.IsZero() && now.Sub(due) > berth.ScheduleGrace
}

// longAgo bounds how far back times are looked for that nobody makes up for.
const longAgo = 24 * time.Hour

// overlaps attends to a schedule whose last start goes on.
func (s *Scheduler) overlaps(ctx context.Context, schedule *berth.Schedule, due, next, now time.Time) (time.Time, error) {
	state := schedule.ScheduleState
	soon := now.Add(againAfter)
	switch schedule.Overlap {
	case berth.OverlapReplace:
		return soon, s.cancel(ctx, *state.Last)
	case berth.OverlapQueue:
		if due.IsZero() {
			return soon, nil
		}
		if state.Waiting == nil {
			state.Waiting = &due
		} else {
			state.Note = note("one waits already for " + *state.Last + " to end")
		}
		state.LastAt = &due
		return soon, s.keep(ctx, schedule, state)
	}
	state.LastAt, state.Note = &due, note("it was due at "+due.UTC().Format(time.RFC3339)+", when "+*state.Last+" had not ended")
	return next, s.keep(ctx, schedule, state)
}

func note(text string) *string { return &text }

func latest(a time.Time, b *time.Time) *time.Time {
	if b != nil && b.After(a) {
		return b
	}
	return &a
}

func (s *Scheduler) keep(ctx context.Context, schedule *berth.Schedule, state berth.ScheduleState) error {
	lease, err := s.lease(schedule.Infrastructure)
	if err != nil {
		return err
	}
	return s.store.CommitSchedule(ctx, lease, schedule.Owner, schedule.Name, state)
}

// begin starts what is due. The same time of a schedule is the same start.
func (s *Scheduler) begin(ctx context.Context, schedule *berth.Schedule, due time.Time) (string, error) {
	if schedule.Run != nil {
		submission := *schedule.Run
		submission.Key = schedule.Key(due)
		run, err := s.service.StartRun(ctx, submission)
		return run.ID, err
	}
	task, err := s.service.SubmitTask(ctx, berth.Submission{Key: schedule.Key(due), Spec: *schedule.Task})
	return task.ID, err
}

// goesOn reports whether a task or a run has not ended. One that is gone has.
func (s *Scheduler) goesOn(ctx context.Context, id string) (bool, error) {
	var ended bool
	var err error
	if berth.IsRunID(id) {
		var run berth.Run
		run, err = s.service.Run(ctx, id)
		ended = run.State.Terminal()
	} else {
		var task berth.Task
		task, err = s.service.Task(ctx, id)
		ended = task.State.Terminal()
	}
	if berth.CodeOf(err) == berth.CodeNotFound {
		return false, nil
	}
	return !ended, err
}

func (s *Scheduler) cancel(ctx context.Context, id string) error {
	var err error
	if berth.IsRunID(id) {
		_, err = s.service.CancelRun(ctx, id)
	} else {
		_, err = s.service.CancelTask(ctx, id)
	}
	return err
}

// Next is when a schedule is due next; nil while it is paused.
func Next(schedule *berth.Schedule, now time.Time) *time.Time {
	table, err := timetable.Parse(schedule.Cron, schedule.Timezone)
	if err != nil || schedule.Paused {
		return nil
	}
	from := now
	if schedule.From.After(now) {
		from = schedule.From
	}
	next := table.Next(from)
	if next.IsZero() {
		return nil
	}
	return &next
}
