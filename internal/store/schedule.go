package store

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// AddSchedule stores a new schedule. CodeConflict when its owner has one of that
// name.
func (s *Store) AddSchedule(ctx context.Context, r *berth.ScheduleRecord) error {
	asked := *r
	asked.Schedule.ScheduleState, asked.Schedule.NextAt, asked.Schedule.Paused = berth.ScheduleState{}, nil, false
	body, err := json.Marshal(&asked)
	if err != nil {
		return s.explain("write", err)
	}
	state, err := json.Marshal(&r.Schedule.ScheduleState)
	if err != nil {
		return s.explain("write", err)
	}
	result, err := s.write.ExecContext(ctx, "INSERT INTO schedules (owner, name, infrastructure, paused, body, state) VALUES (?, ?, ?, 0, ?, ?) ON CONFLICT (owner, name) DO NOTHING",
		r.Schedule.Owner, r.Schedule.Name, r.Schedule.Infrastructure, body, state)
	if err != nil {
		return s.explain("write", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return berth.Errorf(berth.CodeConflict, "there is a schedule %s already: berth schedule delete %s, or choose another name", r.Schedule.Name, r.Schedule.Name)
	}
	return nil
}

// Schedules lists the schedules that a caller may see, by name.
func (s *Store) Schedules(ctx context.Context, caller berth.Caller) ([]berth.ScheduleRecord, error) {
	where, args := visibleTo(caller)
	return s.schedules(ctx, "WHERE "+strings.Join(where, " AND ")+" ORDER BY name, owner", args...)
}

// SchedulesOf returns the schedules of an infrastructure.
func (s *Store) SchedulesOf(ctx context.Context, infrastructure string) ([]berth.ScheduleRecord, error) {
	return s.schedules(ctx, "WHERE infrastructure = ? ORDER BY owner, name", infrastructure)
}

// Schedule returns a schedule by its owner and name. CodeNotFound when there is none.
func (s *Store) Schedule(ctx context.Context, owner, name string) (berth.ScheduleRecord, error) {
	records, err := s.schedules(ctx, "WHERE owner = ? AND name = ?", owner, name)
	if err == nil && len(records) == 0 {
		err = berth.NoSuchSchedule(name)
	}
	if err != nil {
		return berth.ScheduleRecord{}, err
	}
	return records[0], nil
}

// CommitSchedule stores what became of a schedule, under the lease of its
// infrastructure, unless that is the zero one. One that was deleted meanwhile
// stays deleted.
func (s *Store) CommitSchedule(ctx context.Context, lease berth.Lease, owner, name string, state berth.ScheduleState) error {
	text, err := json.Marshal(&state)
	if err != nil {
		return s.explain("write", err)
	}
	return s.explain("write", s.underLease(ctx, lease, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, "UPDATE schedules SET state = ? WHERE owner = ? AND name = ?", text, owner, name)
		return err
	}))
}

// PauseSchedule has a schedule pause, or go on: from now on, without times that
// passed meanwhile.
func (s *Store) PauseSchedule(ctx context.Context, owner, name string, paused bool, now time.Time) error {
	return s.explain("write", s.underLease(ctx, berth.Lease{}, func(tx *transaction) error {
		var was int
		var text []byte
		if err := tx.QueryRowContext(ctx, "SELECT paused, state FROM schedules WHERE owner = ? AND name = ?", owner, name).Scan(&was, &text); err != nil {
			return err
		}
		var state berth.ScheduleState
		if err := json.Unmarshal(text, &state); err != nil {
			return err
		}
		if was == 1 && !paused {
			state.From = now
		}
		text, err := json.Marshal(&state)
		if err != nil {
			return err
		}
		to := 0
		if paused {
			to = 1
		}
		_, err = tx.ExecContext(ctx, "UPDATE schedules SET paused = ?, state = ? WHERE owner = ? AND name = ?", to, text, owner, name)
		return err
	}))
}

// DeleteSchedule deletes a schedule; what it started goes on.
func (s *Store) DeleteSchedule(ctx context.Context, owner, name string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM schedules WHERE owner = ? AND name = ?", owner, name)
	return s.explain("write", err)
}

func (s *Store) schedules(ctx context.Context, clause string, args ...any) ([]berth.ScheduleRecord, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT paused, body, state FROM schedules "+clause, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	records := []berth.ScheduleRecord{}
	for rows.Next() {
		var paused int
		var body, state []byte
		if err := rows.Scan(&paused, &body, &state); err != nil {
			return nil, s.explain("read", err)
		}
		var r berth.ScheduleRecord
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, s.explain("read", err)
		}
		if err := json.Unmarshal(state, &r.Schedule.ScheduleState); err != nil {
			return nil, s.explain("read", err)
		}
		r.Schedule.Paused = paused == 1
		records = append(records, r)
	}
	return records, s.explain("read", rows.Err())
}
