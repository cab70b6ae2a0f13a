package store

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// program is what a run has that nobody is shown, as it is stored.
type program struct {
	Caller   berth.Caller         `json:"caller"`
	Source   berth.WorkflowSource `json:"source"`
	Packages []berth.Package      `json:"packages"`

	ResumeKey string `json:"resumeKey,omitempty"`
}

// PutRun stores a run with its program: a new one, or one that goes on with
// another program. Nothing is stored when the lease isn't held any more:
// berth.ErrFenced then. The zero Lease is none.
func (s *Store) PutRun(ctx context.Context, lease berth.Lease, r *berth.RunRecord) error {
	body, err := runBody(&r.Run)
	if err != nil {
		return s.explain("write", err)
	}
	text, err := json.Marshal(program{r.Caller, r.Source, r.Packages, r.ResumeKey})
	if err != nil {
		return s.explain("write", err)
	}
	return s.explain("write", s.underLease(ctx, lease, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO runs (id, key, infrastructure, owner, state, cancelled_at, program, body) VALUES (?, ?, ?, ?, ?, 0, ?, ?)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, cancelled_at = 0, program = excluded.program, body = excluded.body`,
			r.Run.ID, r.Key, r.Run.Infrastructure, r.Run.Owner, string(r.Run.State), text, body)
		return err
	}))
}

// CommitRun stores how a run stands, where that has changed, and calls of it that
// have changed: all or nothing, and nothing when the lease isn't held any more.
func (s *Store) CommitRun(ctx context.Context, lease berth.Lease, id string, changed *berth.Run, calls []berth.RunCall) error {
	return s.explain("write", s.underLease(ctx, lease, func(tx *transaction) error {
		const rows = 500 // of a statement
		for begin := 0; begin < len(calls); begin += rows {
			some := calls[begin:min(begin+rows, len(calls))]
			args := make([]any, 0, 5*len(some))
			for i := range some {
				body, err := json.Marshal(&some[i])
				if err != nil {
					return err
				}
				args = append(args, id, some[i].Key, some[i].Seq, string(some[i].State), body)
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO run_calls (run, key, seq, state, body) VALUES (?, ?, ?, ?, ?)"+strings.Repeat(", (?, ?, ?, ?, ?)", len(some)-1)+
				" ON CONFLICT (run, key) DO UPDATE SET seq = excluded.seq, state = excluded.state, body = excluded.body", args...)
			if err != nil {
				return err
			}
		}
		if changed == nil {
			return nil
		}
		body, err := runBody(changed)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE runs SET state = ?, body = ? WHERE id = ?", string(changed.State), body, id)
		return err
	}))
}

// runBody is a run without what is told otherwise.
func runBody(r *berth.Run) ([]byte, error) {
	stored := *r
	stored.Calls, stored.CancelledAt = nil, nil
	return json.Marshal(&stored)
}

// underLease runs fn in a transaction that a lease is held for.
func (s *Store) underLease(ctx context.Context, lease berth.Lease, fn func(*transaction) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	if lease != (berth.Lease{}) {
		if _, err := tx.ExecContext(ctx, "SELECT fence(?, ?, ?)", lease.Infrastructure, lease.Holder, lease.Fence); err != nil {
			return err
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// CancelRun records that a run is to be cancelled, the first time.
func (s *Store) CancelRun(ctx context.Context, id string, now time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE runs SET cancelled_at = ? WHERE id = ? AND cancelled_at = 0 AND state = 'running'", now.UnixNano(), id)
	return s.explain("write", err)
}

// Run returns a run, and how many of its calls are in each state. CodeNotFound
// when there is none.
func (s *Store) Run(ctx context.Context, id string) (berth.Run, error) {
	runs, err := s.runs(ctx, "WHERE id = ?", id)
	if err == nil && len(runs) == 0 {
		err = berth.NoSuchRun(id)
	}
	if err != nil {
		return berth.Run{}, err
	}
	return runs[0], nil
}

// RunByKey returns the run that was started with an idempotency key.
// CodeNotFound when there is none.
func (s *Store) RunByKey(ctx context.Context, key string) (berth.Run, error) {
	runs, err := s.runs(ctx, "WHERE key = ?", key)
	if err == nil && len(runs) == 0 {
		err = berth.NoSuchRun(key)
	}
	if err != nil {
		return berth.Run{}, err
	}
	return runs[0], nil
}

// RunRecord returns a run with its program.
func (s *Store) RunRecord(ctx context.Context, id string) (berth.RunRecord, error) {
	run, err := s.Run(ctx, id)
	if err != nil {
		return berth.RunRecord{}, err
	}
	record := berth.RunRecord{Run: run}
	var text []byte
	if err := s.read.QueryRowContext(ctx, "SELECT key, program FROM runs WHERE id = ?", id).Scan(&record.Key, &text); err != nil {
		return record, s.explain("read", err)
	}
	var p program
	if err := json.Unmarshal(text, &p); err != nil {
		return record, s.explain("read", err)
	}
	record.Caller, record.Source, record.Packages, record.ResumeKey = p.Caller, p.Source, p.Packages, p.ResumeKey
	return record, nil
}

// Runs lists the runs that a caller may see, newest first.
func (s *Store) Runs(ctx context.Context, q berth.RunQuery, caller berth.Caller) (berth.RunPage, error) {
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
	if q.State != "" {
		add("state = ?", string(q.State))
	}
	if q.After != "" {
		add("id < ?", q.After)
	}
	runs, err := s.runs(ctx, "WHERE "+strings.Join(where, " AND ")+" ORDER BY id DESC LIMIT ?", append(args, q.Limit+1)...)
	page := berth.RunPage{Runs: runs}
	if err == nil && len(runs) > q.Limit {
		page.Runs = runs[:q.Limit]
		page.Next = runs[q.Limit-1].ID
	}
	return page, err
}

// LiveRuns names the runs of an infrastructure that have not ended.
func (s *Store) LiveRuns(ctx context.Context, infrastructure string) ([]string, error) {
	return s.texts(ctx, "SELECT id FROM runs WHERE infrastructure = ? AND state = 'running' ORDER BY id", infrastructure)
}

func (s *Store) runs(ctx context.Context, clause string, args ...any) ([]berth.Run, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT body, cancelled_at FROM runs "+clause, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	runs := []berth.Run{}
	for rows.Next() {
		var body []byte
		var cancelled int64
		if err := rows.Scan(&body, &cancelled); err != nil {
			return nil, s.explain("read", err)
		}
		var r berth.Run
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, s.explain("read", err)
		}
		if cancelled != 0 {
			at := time.Unix(0, cancelled).UTC()
			r.CancelledAt = &at
		}
		runs = append(runs, r)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read", err)
	}
	for i := range runs {
		if err := s.countCalls(ctx, &runs[i]); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

func (s *Store) countCalls(ctx context.Context, r *berth.Run) error {
	r.Calls = map[berth.CallState]int{}
	for _, state := range berth.CallStates {
		r.Calls[state] = 0
	}
	rows, err := s.read.QueryContext(ctx, "SELECT state, COUNT(*) FROM run_calls WHERE run = ? GROUP BY state", r.ID)
	if err != nil {
		return s.explain("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var state berth.CallState
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return s.explain("read", err)
		}
		if state != berth.CallPrinted {
			r.Calls[state] = n
		}
	}
	return s.explain("read", rows.Err())
}

// RunCalls returns calls of a run with a Seq above after, in the order in which
// they began.
func (s *Store) RunCalls(ctx context.Context, run string, after int64, limit int) ([]berth.RunCall, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT body FROM run_calls WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?", run, after, limit)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	var calls []berth.RunCall
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, s.explain("read", err)
		}
		var call berth.RunCall
		if err := json.Unmarshal(body, &call); err != nil {
			return nil, s.explain("read", err)
		}
		calls = append(calls, call)
	}
	return calls, s.explain("read", rows.Err())
}
