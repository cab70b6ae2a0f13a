package store

import (
	"context"
	"encoding/json"

	"github.com/berth-run/berth"
)

// Commit stores all changes or none.
func (s *Store) Commit(ctx context.Context, changes []berth.Change) error {
	return s.CommitUnder(ctx, berth.Lease{}, changes)
}

// CommitUnder stores all changes or none, and none when the lease, or one of
// those beside it, isn't held any more: berth.ErrFenced then. The zero Lease is
// none, for a store that one process has for itself.
func (s *Store) CommitUnder(ctx context.Context, lease berth.Lease, changes []berth.Change, beside ...berth.Lease) error {
	at := 0
	next := func() (*berth.Change, error) {
		if at == len(changes) {
			return nil, nil
		}
		at++
		return &changes[at-1], nil
	}
	return s.explain("write", s.dialect.commit(ctx, writing{lease: lease, beside: beside, next: next}))
}

// writing is what is stored by one transaction.
type writing struct {
	lease  berth.Lease // the zero one is none
	beside []berth.Lease
	array  *arrayRow // nil: none
	next   func() (*berth.Change, error)
}

// arrayRow is an array as it is stored.
type arrayRow struct {
	id, key, infrastructure, owner string
	body                           []byte
}

// taskRow is a life as it is stored: its JSON, and what is searched by.
type taskRow struct {
	id, key, state, infrastructure, name, owner, share, array string
	live, precedence, index                                   int
	life                                                      []byte
}

func rowOf(c *berth.Change) (taskRow, error) {
	t := &c.Life.Task
	row := taskRow{
		id: t.ID, key: c.Life.Key, state: string(t.State), infrastructure: t.Infrastructure, owner: t.Owner, share: c.Life.Share,
		live: liveness(c.Life), precedence: -t.Spec.Priority,
	}
	if t.Name != nil {
		row.name = *t.Name
	}
	if t.Array != nil {
		row.array, row.index = t.Array.ID, t.Array.Index
	}
	var err error
	row.life, err = json.Marshal(c.Life)
	return row, err
}

// liveness is the column live of a life.
func liveness(l *berth.Life) int {
	switch {
	case l.Settled():
		return settled
	case l.Parked():
		return parked
	}
	return attended
}

// What the column live says.
const (
	settled  = iota // nothing is left to be done
	attended        // something is under way
	parked          // it merely waits to be let through
)
