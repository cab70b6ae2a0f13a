package store

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

const insertArray = "INSERT INTO arrays (id, key, infrastructure, owner, cancelled_at, body) VALUES (?, ?, ?, ?, 0, ?)"

// AddArray stores an array with its tasks, all or nothing. next gives the tasks
// one after the other, so that they are never in memory together; it returns
// nil behind the last.
func (s *Store) AddArray(ctx context.Context, key string, a *berth.Array, next func() (*berth.Change, error)) error {
	return s.AddArrayUnder(ctx, berth.Lease{}, key, a, next)
}

// AddArrayUnder is AddArray that stores nothing when the lease isn't held any
// more: berth.ErrFenced then.
func (s *Store) AddArrayUnder(ctx context.Context, lease berth.Lease, key string, a *berth.Array, next func() (*berth.Change, error)) error {
	stored := *a
	stored.States = nil // they are counted when they are asked for
	body, err := json.Marshal(&stored)
	if err != nil {
		return s.explain("write", err)
	}
	row := &arrayRow{a.ID, key, a.Infrastructure, a.Owner, body}
	return s.explain("write", s.dialect.commit(ctx, writing{lease: lease, array: row, next: next}))
}

// Array returns an array, and how many of its tasks are in each state.
// CodeNotFound when there is none.
func (s *Store) Array(ctx context.Context, id string) (berth.Array, error) {
	arrays, err := s.arrays(ctx, "WHERE id = ?", id)
	if err == nil && len(arrays) == 0 {
		err = berth.NoSuchArray(id)
	}
	if err != nil {
		return berth.Array{}, err
	}
	return arrays[0], nil
}

// ArrayByKey returns the array that was submitted with an idempotency key.
// CodeNotFound when there is none.
func (s *Store) ArrayByKey(ctx context.Context, key string) (berth.Array, error) {
	arrays, err := s.arrays(ctx, "WHERE key = ?", key)
	if err == nil && len(arrays) == 0 {
		err = berth.NoSuchArray(key)
	}
	if err != nil {
		return berth.Array{}, err
	}
	return arrays[0], nil
}

// Arrays lists the arrays that a caller may see, newest first.
func (s *Store) Arrays(ctx context.Context, q berth.ArrayQuery, caller berth.Caller) (berth.ArrayPage, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	where, args := visibleTo(caller)
	add := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if q.Owner != "" {
		add("owner = ?", q.Owner)
	}
	if q.Infrastructure != "" {
		add("infrastructure = ?", q.Infrastructure)
	}
	if q.After != "" {
		add("id < ?", q.After)
	}
	arrays, err := s.arrays(ctx, "WHERE "+strings.Join(where, " AND ")+" ORDER BY id DESC LIMIT ?", append(args, q.Limit+1)...)
	page := berth.ArrayPage{Arrays: arrays}
	if err == nil && len(arrays) > q.Limit {
		page.Arrays = arrays[:q.Limit]
		page.Next = arrays[q.Limit-1].ID
	}
	return page, err
}

// CancelArray records that an array is to be cancelled, the first time.
func (s *Store) CancelArray(ctx context.Context, id string, now time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE arrays SET cancelled_at = ? WHERE id = ? AND cancelled_at = 0", now.UnixNano(), id)
	return s.explain("write", err)
}

// CancelledArrays names the arrays of an infrastructure that were cancelled, and
// have tasks which still are to be.
func (s *Store) CancelledArrays(ctx context.Context, infrastructure string) ([]string, error) {
	return s.texts(ctx, `SELECT id FROM arrays WHERE cancelled_at <> 0 AND infrastructure = ? AND EXISTS
		(SELECT 1 FROM tasks WHERE array_id = arrays.id AND state IN ('queued', 'launching', 'running'))`, infrastructure)
}

// ArrayTasks returns the ids of an array's tasks in some states, with an index
// above after, in the order of their indices.
func (s *Store) ArrayTasks(ctx context.Context, id string, states []berth.TaskState, after, limit int) (ids []string, last int, err error) {
	args := append(append([]any{id}, anys(states)...), after, limit)
	rows, err := s.read.QueryContext(ctx, "SELECT id, array_index FROM tasks WHERE array_id = ? AND array_id <> '' AND state IN (?"+strings.Repeat(",?", len(states)-1)+") AND array_index > ? ORDER BY array_index LIMIT ?", args...)
	if err != nil {
		return nil, 0, s.explain("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var task string
		if err := rows.Scan(&task, &last); err != nil {
			return nil, 0, s.explain("read", err)
		}
		ids = append(ids, task)
	}
	return ids, last, s.explain("read", rows.Err())
}

func (s *Store) arrays(ctx context.Context, clause string, args ...any) ([]berth.Array, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT body, cancelled_at FROM arrays "+clause, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	arrays := []berth.Array{}
	for rows.Next() {
		var body []byte
		var cancelled int64
		if err := rows.Scan(&body, &cancelled); err != nil {
			return nil, s.explain("read", err)
		}
		var a berth.Array
		if err := json.Unmarshal(body, &a); err != nil {
			return nil, s.explain("read", err)
		}
		if cancelled != 0 {
			at := time.Unix(0, cancelled).UTC()
			a.CancelledAt = &at
		}
		arrays = append(arrays, a)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read", err)
	}
	for i := range arrays {
		if err := s.countStates(ctx, &arrays[i]); err != nil {
			return nil, err
		}
	}
	return arrays, nil
}

func (s *Store) countStates(ctx context.Context, a *berth.Array) error {
	a.States = map[berth.TaskState]int{}
	for _, state := range berth.TaskStates {
		a.States[state] = 0
	}
	rows, err := s.read.QueryContext(ctx, "SELECT state, COUNT(*) FROM tasks WHERE array_id = ? AND array_id <> '' GROUP BY state", a.ID)
	if err != nil {
		return s.explain("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var state berth.TaskState
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return s.explain("read", err)
		}
		a.States[state] = n
	}
	return s.explain("read", rows.Err())
}

// texts returns the first column of what a query finds.
func (s *Store) texts(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, s.explain("read", err)
		}
		all = append(all, text)
	}
	return all, s.explain("read", rows.Err())
}

// ArrayItems returns what the tasks of an array in some states are for, with an
// index above after, in the order of their indices.
func (s *Store) ArrayItems(ctx context.Context, id string, states []berth.TaskState, after, limit int) ([]berth.ArrayItem, error) {
	args := append(append([]any{id}, anys(states)...), after, limit)
	lives, err := s.lives(ctx, "SELECT life FROM tasks WHERE array_id = ? AND array_id <> '' AND state IN (?"+strings.Repeat(",?", len(states)-1)+") AND array_index > ? ORDER BY array_index LIMIT ?", args...)
	var items []berth.ArrayItem
	for _, life := range lives {
		items = append(items, *life.Task.Array)
	}
	return items, err
}
