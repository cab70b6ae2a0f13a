package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// SaveMeters stores what is new of meters, all or nothing. Of samples stored
// before, those go that the meter keeps no longer.
func (s *Store) SaveMeters(ctx context.Context, metered []berth.Metered) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.explain("write", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	for i := range metered {
		if err := saveMeter(ctx, tx, &metered[i]); err != nil {
			return s.explain("write", err)
		}
	}
	return s.explain("write", tx.Commit())
}

func saveMeter(ctx context.Context, tx *transaction, m *berth.Metered) error {
	data, err := json.Marshal(m.Meter)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO meters (task_id, attempt, meter) VALUES (?, ?, ?) ON CONFLICT (task_id, attempt) DO UPDATE SET meter = excluded.meter",
		m.TaskID, m.Attempt, data); err != nil {
		return err
	}
	for _, sample := range m.Samples {
		if _, err := tx.ExecContext(ctx, "INSERT INTO samples (task_id, attempt, seq, at, cpu_seconds, memory_bytes) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			m.TaskID, m.Attempt, sample.Seq, sample.At.UnixNano(), sample.CPUSeconds, sample.MemoryBytes); err != nil {
			return err
		}
	}
	if m.Thinned {
		_, err = tx.ExecContext(ctx, "DELETE FROM samples WHERE task_id = ? AND attempt = ? AND seq % ? <> 0", m.TaskID, m.Attempt, m.Meter.Stride)
	}
	return err
}

// metersPage is how many tasks are asked for at once; SQLite bounds a query's arguments.
const metersPage = 500

// Meters returns the meters of all attempts of tasks, without samples.
func (s *Store) Meters(ctx context.Context, tasks []string) ([]berth.Metered, error) {
	var metered []berth.Metered
	for page := range slices.Chunk(tasks, metersPage) {
		some, err := s.metersOf(ctx, page)
		if err != nil {
			return nil, s.explain("read", err)
		}
		metered = append(metered, some...)
	}
	return metered, nil
}

func (s *Store) metersOf(ctx context.Context, tasks []string) ([]berth.Metered, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT task_id, attempt, meter FROM meters WHERE task_id IN (?"+strings.Repeat(",?", len(tasks)-1)+")", anys(tasks)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var metered []berth.Metered
	for rows.Next() {
		var m berth.Metered
		var data []byte
		if err := rows.Scan(&m.TaskID, &m.Attempt, &data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &m.Meter); err != nil {
			return nil, err
		}
		metered = append(metered, m)
	}
	return metered, rows.Err()
}

// Metered returns the meter of an attempt with its samples, in order; nil when
// nothing was measured.
func (s *Store) Metered(ctx context.Context, taskID string, attempt int) (*berth.Metered, error) {
	m := berth.Metered{TaskID: taskID, Attempt: attempt}
	var data []byte
	err := s.read.QueryRowContext(ctx, "SELECT meter FROM meters WHERE task_id = ? AND attempt = ?", taskID, attempt).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m.Meter)
	}
	if err != nil {
		return nil, s.explain("read", err)
	}
	rows, err := s.read.QueryContext(ctx, "SELECT seq, at, cpu_seconds, memory_bytes FROM samples WHERE task_id = ? AND attempt = ? ORDER BY seq", taskID, attempt)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var sample berth.Sample
		var at int64
		if err := rows.Scan(&sample.Seq, &at, &sample.CPUSeconds, &sample.MemoryBytes); err != nil {
			return nil, s.explain("read", err)
		}
		sample.At = time.Unix(0, at).UTC()
		m.Samples = append(m.Samples, sample)
	}
	return &m, s.explain("read", rows.Err())
}
