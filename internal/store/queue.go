package store

import (
	"context"

	"github.com/berth-run/berth"
)

// Queued returns tasks of an infrastructure and a share that merely wait to be
// let through, in the order in which they are to be: higher priorities first,
// then older ones. after is the last of the page before, nil for the first.
func (s *Store) Queued(ctx context.Context, infrastructure, share string, after *berth.Life, limit int) ([]*berth.Life, error) {
	const query = "SELECT life FROM tasks WHERE live = 2 AND infrastructure = ? AND share = ?"
	const order = " ORDER BY precedence, id LIMIT ?"
	if after == nil {
		return s.lives(ctx, query+order, infrastructure, share, limit)
	}
	return s.lives(ctx, query+" AND (precedence, id) > (?, ?)"+order, infrastructure, share, -after.Task.Spec.Priority, after.Task.ID, limit)
}

// Shares names the shares of an infrastructure that have tasks which merely
// wait to be let through, and how many all of them have.
func (s *Store) Shares(ctx context.Context, infrastructure string) (shares map[string]int, err error) {
	rows, err := s.read.QueryContext(ctx, "SELECT share, COUNT(*) FROM tasks WHERE live = 2 AND infrastructure = ? GROUP BY share", infrastructure)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	shares = map[string]int{}
	for rows.Next() {
		var share string
		var n int
		if err := rows.Scan(&share, &n); err != nil {
			return nil, s.explain("read", err)
		}
		shares[share] = n
	}
	return shares, s.explain("read", rows.Err())
}
