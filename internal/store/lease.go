package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/berth-run/berth"
)

// leaseSeconds is how long a server and its leases are good, from when the
// database renewed them on.
var leaseSeconds = berth.LeaseLength.Seconds()

// sharing returns the database that servers share; a file has one host.
func (s *Store) sharing() (*postgres, error) {
	if p, ok := s.dialect.(*postgres); ok {
		return p, nil
	}
	return nil, berth.Errorf(berth.CodeUnsupported, "%s has one host: several servers share a PostgreSQL database", s.place)
}

// Shared reports whether several servers can use the store at once.
func (s *Store) Shared() bool {
	_, err := s.sharing()
	return err == nil
}

// Heartbeat says that a server is there, renews the leases that it holds, and
// returns who else is and who holds what. It joins a server that wasn't there.
// All times are the database's.
func (s *Store) Heartbeat(ctx context.Context, self berth.Server, held []berth.Lease) (berth.Sharing, error) {
	p, err := s.sharing()
	if err != nil {
		return berth.Sharing{}, err
	}
	names, err := json.Marshal(append([]string{}, self.Infrastructures...))
	if err != nil {
		return berth.Sharing{}, err
	}
	infrastructures, fences := make([]string, len(held)), make([]int64, len(held))
	for i, lease := range held {
		infrastructures[i], fences[i] = lease.Infrastructure, lease.Fence
	}
	var out berth.Sharing
	err = p.leased(ctx, func(tx *transaction) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO servers (id, url, ca, infrastructures, started_at, expires_at) VALUES (?, ?, ?, ?, clock_timestamp(), clock_timestamp() + ? * interval '1 second')
			ON CONFLICT (id) DO UPDATE SET url = excluded.url, ca = excluded.ca, infrastructures = excluded.infrastructures, expires_at = excluded.expires_at`,
			self.ID, self.URL, self.CA, string(names), leaseSeconds); err != nil {
			return err
		}
		var err error
		if out.Renewed, err = scanTexts(tx.QueryContext(ctx, `UPDATE leases l SET expires_at = clock_timestamp() + ? * interval '1 second'
			FROM unnest(?::text[], ?::bigint[]) AS held (infrastructure, fence)
			WHERE l.infrastructure = held.infrastructure AND l.fence = held.fence AND l.holder = ? RETURNING l.infrastructure`,
			leaseSeconds, infrastructures, fences, self.ID)); err != nil {
			return err
		}
		if out.Servers, err = servers(ctx, tx); err != nil {
			return err
		}
		out.Leases, err = leases(ctx, tx)
		return err
	})
	return out, s.explain("renew leases in", err)
}

// Sharing returns who shares the store and who holds what, changing nothing.
func (s *Store) Sharing(ctx context.Context) (berth.Sharing, error) {
	p, err := s.sharing()
	if err != nil {
		return berth.Sharing{}, err
	}
	var out berth.Sharing
	if out.Servers, err = servers(ctx, p.leases); err == nil {
		out.Leases, err = leases(ctx, p.leases)
	}
	return out, s.explain("read", err)
}

// Acquire takes the lease of an infrastructure that nobody holds, or that this
// server held in an earlier life. ok is false when another server has it.
func (s *Store) Acquire(ctx context.Context, infrastructure, server string) (lease berth.Lease, ok bool, err error) {
	p, err := s.sharing()
	if err != nil {
		return lease, false, err
	}
	lease = berth.Lease{Infrastructure: infrastructure, Holder: server}
	err = p.leases.QueryRowContext(ctx, `INSERT INTO leases AS l (infrastructure, holder, fence, expires_at) VALUES (?, ?, 1, clock_timestamp() + ? * interval '1 second')
		ON CONFLICT (infrastructure) DO UPDATE SET holder = excluded.holder, fence = l.fence + 1, expires_at = clock_timestamp() + ? * interval '1 second'
		WHERE l.expires_at <= clock_timestamp() OR l.holder = excluded.holder RETURNING fence`, infrastructure, server, leaseSeconds, leaseSeconds).Scan(&lease.Fence)
	if errors.Is(err, sql.ErrNoRows) {
		return lease, false, nil
	}
	return lease, err == nil, s.explain("take a lease in", err)
}

// Release lets go of a lease at once. One that isn't held any more stays whose it is.
func (s *Store) Release(ctx context.Context, lease berth.Lease) error {
	p, err := s.sharing()
	if err != nil {
		return err
	}
	// The row stays, and with it the fence.
	_, err = p.leases.ExecContext(ctx, "UPDATE leases SET holder = '', expires_at = clock_timestamp() WHERE infrastructure = ? AND holder = ? AND fence = ?", lease.Infrastructure, lease.Holder, lease.Fence)
	return s.explain("release a lease in", err)
}

// Leave takes a server out, and lets go of all that it holds.
func (s *Store) Leave(ctx context.Context, server string) error {
	p, err := s.sharing()
	if err != nil {
		return err
	}
	return s.explain("leave", p.leased(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, "UPDATE leases SET holder = '', expires_at = clock_timestamp() WHERE holder = ?", server)
		if err == nil {
			_, err = tx.ExecContext(ctx, "DELETE FROM servers WHERE id = ?", server)
		}
		if err == nil { // what servers that died left
			_, err = tx.ExecContext(ctx, "DELETE FROM servers WHERE expires_at < clock_timestamp() - interval '1 day'")
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, "DELETE FROM commits WHERE at < clock_timestamp() - interval '1 day'")
		}
		return err
	}))
}

// leased runs fn in a transaction on the connection of leases.
func (p *postgres) leased(ctx context.Context, fn func(*transaction) error) error {
	tx, err := p.leases.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// querier is a database or a transaction on it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func servers(ctx context.Context, q querier) ([]berth.Server, error) {
	rows, err := q.QueryContext(ctx, "SELECT id, url, ca, infrastructures FROM servers WHERE expires_at > clock_timestamp() ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []berth.Server
	for rows.Next() {
		var server berth.Server
		var names []byte
		if err := rows.Scan(&server.ID, &server.URL, &server.CA, &names); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(names, &server.Infrastructures); err != nil {
			return nil, err
		}
		list = append(list, server)
	}
	return list, rows.Err()
}

func leases(ctx context.Context, q querier) ([]berth.Lease, error) {
	rows, err := q.QueryContext(ctx, "SELECT infrastructure, holder, fence FROM leases WHERE expires_at > clock_timestamp() ORDER BY infrastructure")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []berth.Lease
	for rows.Next() {
		var lease berth.Lease
		if err := rows.Scan(&lease.Infrastructure, &lease.Holder, &lease.Fence); err != nil {
			return nil, err
		}
		list = append(list, lease)
	}
	return list, rows.Err()
}

func scanTexts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}
