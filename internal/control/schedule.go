package control

import (
	"context"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/schedules"
	"github.com/berth-run/berth/internal/timetable"
)

func (h *Host) CreateSchedule(ctx context.Context, s berth.Schedule) (berth.Schedule, error) {
	caller := h.caller(ctx)
	if err := s.Validate(); err != nil {
		return berth.Schedule{}, err
	}
	if _, err := timetable.Parse(s.Cron, s.Timezone); err != nil {
		return berth.Schedule{}, berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	home, err := h.scheduleHome(ctx, caller, &s)
	if err != nil {
		return berth.Schedule{}, err
	}
	now := time.Now().UTC()
	s.Owner, s.Infrastructure, s.CreatedAt, s.Paused = caller.Name, home.Name, now, false
	s.ScheduleState = berth.ScheduleState{From: now}
	if err := h.start(ctx, home.Name); err != nil && h.fleet == nil {
		return berth.Schedule{}, err
	}
	err = h.store.AddSchedule(ctx, &berth.ScheduleRecord{Schedule: s, Caller: caller})
	if berth.CodeOf(err) == berth.CodeConflict { // it may have been this very one, whose answer was lost
		if there, wrong := h.store.Schedule(ctx, caller.Name, s.Name); wrong == nil && there.Schedule.Same(&s) {
			s, err = there.Schedule, nil
		}
	}
	if err != nil {
		return berth.Schedule{}, err
	}
	h.schedules.Nudge(home.Name)
	s.NextAt = schedules.Next(&s, now)
	return s, nil
}

// scheduleHome returns the infrastructure that a schedule belongs to, having
// looked whether what it is to start could be started now.
func (h *Host) scheduleHome(ctx context.Context, caller berth.Caller, s *berth.Schedule) (berth.InfrastructureConfig, error) {
	if s.Task != nil {
		spec := *s.Task
		entry, _, err := h.placed(ctx, caller, &spec)
		if err == nil && spec.Call != nil {
			err = h.resolveCall(ctx, entry, &spec)
		}
		return entry, err
	}
	entry, err := h.homeOf(ctx, caller, *s.Run)
	if err != nil {
		return entry, err
	}
	record := &berth.RunRecord{Run: berth.Run{Infrastructure: entry.Name, Arguments: s.Run.Arguments, OnError: s.Run.OnError, Limits: s.Run.Limits}}
	if err = h.setProgram(ctx, record, s.Run.Source); err == nil {
		err = checkRun(&record.Run)
	}
	s.Run.Source = record.Source
	return entry, err
}

func (h *Host) Schedules(ctx context.Context) ([]berth.Schedule, error) {
	records, err := h.store.Schedules(ctx, h.caller(ctx))
	list := []berth.Schedule{}
	for i := range records {
		s := records[i].Schedule
		if s.Run != nil {
			s.Run.Source.Files = nil // a list is not for programs
		}
		s.NextAt = schedules.Next(&s, time.Now())
		list = append(list, s)
	}
	return list, err
}

// ownedSchedule returns a schedule that a caller may change: their own, or as an
// admin another's, as OWNER/NAME.
func (h *Host) ownedSchedule(ctx context.Context, name, what string) (berth.ScheduleRecord, error) {
	caller := h.caller(ctx)
	owner := caller.Name
	if other, its, found := strings.Cut(name, "/"); found {
		if owner, name = other, its; caller.Role != berth.RoleAdmin && owner != caller.Name {
			return berth.ScheduleRecord{}, berth.NoSuchSchedule(name)
		}
	}
	r, err := h.store.Schedule(ctx, owner, name)
	if err == nil && !caller.Role.Includes(berth.RoleWrite) {
		err = needs(caller, berth.RoleWrite, what)
	}
	return r, err
}

func (h *Host) PauseSchedule(ctx context.Context, name string, paused bool) (berth.Schedule, error) {
	r, err := h.ownedSchedule(ctx, name, "pause schedules")
	if err != nil {
		return berth.Schedule{}, err
	}
	if err := h.store.PauseSchedule(ctx, r.Schedule.Owner, r.Schedule.Name, paused, time.Now().UTC()); err != nil {
		return berth.Schedule{}, err
	}
	if !paused && h.fleet == nil {
		if err := h.start(ctx, r.Schedule.Infrastructure); err != nil {
			return berth.Schedule{}, err
		}
	}
	h.schedules.Nudge(r.Schedule.Infrastructure)
	if r, err = h.store.Schedule(ctx, r.Schedule.Owner, r.Schedule.Name); err != nil {
		return berth.Schedule{}, err
	}
	r.Schedule.NextAt = schedules.Next(&r.Schedule, time.Now())
	return r.Schedule, nil
}

func (h *Host) DeleteSchedule(ctx context.Context, name string) error {
	r, err := h.ownedSchedule(ctx, name, "delete schedules")
	if err != nil {
		return err
	}
	return h.store.DeleteSchedule(ctx, r.Schedule.Owner, r.Schedule.Name)
}
