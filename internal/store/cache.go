package store

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/berth-run/berth"
)

// CachedCall returns what an equal call of an owner gave. CodeNotFound when
// there is none.
func (s *Store) CachedCall(ctx context.Context, owner, digest string) (berth.CachedCall, error) {
	calls, err := s.cachedCalls(ctx, "WHERE owner = ? AND digest = ?", owner, digest)
	if err == nil && len(calls) == 0 {
		err = berth.NoSuchCachedCall(digest)
	}
	if err != nil {
		return berth.CachedCall{}, err
	}
	return calls[0], nil
}

// PutCachedCall stores what a call gave, unless what an equal one gave is there.
func (s *Store) PutCachedCall(ctx context.Context, c *berth.CachedCall) error {
	body, err := json.Marshal(c)
	if err != nil {
		return s.explain("write", err)
	}
	_, err = s.write.ExecContext(ctx, "INSERT INTO cached_calls (id, owner, digest, package, created_at, body) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (owner, digest) DO NOTHING",
		c.ID, c.Owner, c.Digest, c.Package, c.CreatedAt.UnixNano(), body)
	return s.explain("write", err)
}

// DropCachedCall forgets a call; one that is not there is forgotten already.
func (s *Store) DropCachedCall(ctx context.Context, id string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM cached_calls WHERE id = ?", id)
	return s.explain("write", err)
}

// CachedCalls lists cached calls that a caller may see, newest first.
func (s *Store) CachedCalls(ctx context.Context, q berth.CacheQuery, caller berth.Caller) (berth.CachePage, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	where, args := cacheCondition(q, caller)
	if q.After != "" {
		where, args = where+" AND id < ?", append(args, q.After)
	}
	calls, err := s.cachedCalls(ctx, "WHERE "+where+" ORDER BY id DESC LIMIT ?", append(args, q.Limit+1)...)
	page := berth.CachePage{Calls: calls}
	if err == nil && len(calls) > q.Limit {
		page.Calls = calls[:q.Limit]
		page.Next = calls[q.Limit-1].ID
	}
	return page, err
}

// ClearCachedCalls forgets the cached calls that a caller may see and a query
// selects, and returns how many those were.
func (s *Store) ClearCachedCalls(ctx context.Context, q berth.CacheQuery, caller berth.Caller) (int, error) {
	where, args := cacheCondition(q, caller)
	result, err := s.write.ExecContext(ctx, "DELETE FROM cached_calls WHERE "+where, args...)
	if err != nil {
		return 0, s.explain("write", err)
	}
	n, err := result.RowsAffected()
	return int(n), s.explain("write", err)
}

func cacheCondition(q berth.CacheQuery, caller berth.Caller) (string, []any) {
	where, args := []string{"id <> ''"}, []any{}
	add := func(condition string, value any) {
		where, args = append(where, condition), append(args, value)
	}
	if caller.Role != berth.RoleAdmin {
		add("owner = ?", caller.Name)
	}
	if q.Owner != "" {
		add("owner = ?", q.Owner)
	}
	if q.Package != "" {
		add("package = ?", q.Package)
	}
	if !q.Before.IsZero() {
		add("created_at < ?", q.Before.UnixNano())
	}
	return strings.Join(where, " AND "), args
}

func (s *Store) cachedCalls(ctx context.Context, clause string, args ...any) ([]berth.CachedCall, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT body FROM cached_calls "+clause, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	calls := []berth.CachedCall{}
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, s.explain("read", err)
		}
		var c berth.CachedCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, s.explain("read", err)
		}
		calls = append(calls, c)
	}
	return calls, s.explain("read", rows.Err())
}
