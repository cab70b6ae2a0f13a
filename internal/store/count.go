package store

import (
	"context"
	"time"

	"github.com/berth-run/berth"
)

// CountByState returns how many tasks there are in each state.
func (s *Store) CountByState(ctx context.Context) (map[berth.TaskState]int, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT state, COUNT(*) FROM tasks GROUP BY state")
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	counts := map[berth.TaskState]int{}
	for rows.Next() {
		var state berth.TaskState
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return nil, s.explain("read", err)
		}
		counts[state] = n
	}
	return counts, s.explain("read", rows.Err())
}

// CountUnended returns how many tasks of an infrastructure have not ended.
func (s *Store) CountUnended(ctx context.Context, infrastructure string) (n int, err error) {
	// By an index each. What merely waits has not ended.
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM tasks WHERE live = 1 AND infrastructure = ? AND state IN ('queued', 'launching', 'running'))
		+ (SELECT COUNT(*) FROM tasks WHERE live = 2 AND infrastructure = ?)`, infrastructure, infrastructure).Scan(&n)
	return n, s.explain("read", err)
}

// NewestTask returns the greatest id of a task; empty where there is none.
func (s *Store) NewestTask(ctx context.Context) (string, error) {
	var id string
	err := s.read.QueryRowContext(ctx, "SELECT COALESCE(MAX(id), '') FROM tasks").Scan(&id)
	return id, s.explain("read", err)
}

// Probe writes, to find out whether that can be done.
func (s *Store) Probe(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('probe', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", time.Now().UTC().Format(time.RFC3339Nano))
	return s.explain("write", err)
}
