package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/berth-run/berth"
)

const tokenColumns = "id, name, role, infrastructures, created_at, expires_at, last_used_at, revoked_at"

// AddToken stores a token by its secret's hash. One that was added with the
// same id, and never used, gets this secret: whoever asked for it did not
// receive the one before. CodeConflict when it was used, or is another's.
func (s *Store) AddToken(ctx context.Context, t berth.Token) error {
	infrastructures, err := json.Marshal(append([]string{}, t.Infrastructures...))
	if err != nil {
		return s.explain("write", err)
	}
	hash := sha256.Sum256([]byte(t.Secret.Reveal()))
	result, err := s.write.ExecContext(ctx, `INSERT INTO tokens (id, hash, name, role, infrastructures, created_at, expires_at, last_used_at, revoked_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)
		ON CONFLICT (id) DO UPDATE SET hash = excluded.hash
		WHERE tokens.name = excluded.name AND tokens.role = excluded.role AND tokens.infrastructures = excluded.infrastructures
			AND tokens.last_used_at = 0 AND tokens.revoked_at = 0`,
		t.ID, hash[:], t.Name, t.Role, string(infrastructures), t.CreatedAt.UnixNano(), nanoseconds(t.ExpiresAt))
	if err != nil {
		return s.explain("write", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return berth.Errorf(berth.CodeConflict, "a token was made with the key %q before, and isn't this one", t.ID)
	}
	return nil
}

// TokenBySecret returns the token that has a secret, whether or not it is still
// good. CodeNotFound when there is none.
func (s *Store) TokenBySecret(ctx context.Context, secret string) (berth.Token, error) {
	hash := sha256.Sum256([]byte(secret))
	// The index finds a hash, which says nothing of secrets near it; what it
	// found is compared in constant time all the same.
	var found []byte
	row := s.read.QueryRowContext(ctx, "SELECT hash, "+tokenColumns+" FROM tokens WHERE hash = ?", hash[:])
	t, err := scanToken(func(to ...any) error { return row.Scan(append([]any{&found}, to...)...) })
	if errors.Is(err, sql.ErrNoRows) || err == nil && subtle.ConstantTimeCompare(found, hash[:]) != 1 {
		return berth.Token{}, berth.Errorf(berth.CodeNotFound, "there is no such token")
	}
	return t, s.explain("read", err)
}

// Tokens lists the tokens that aren't revoked, oldest first.
func (s *Store) Tokens(ctx context.Context) ([]berth.Token, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE revoked_at = 0 ORDER BY created_at, id")
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	tokens := []berth.Token{}
	for rows.Next() {
		t, err := scanToken(rows.Scan)
		if err != nil {
			return nil, s.explain("read", err)
		}
		tokens = append(tokens, t)
	}
	return tokens, s.explain("read", rows.Err())
}

// RevokeToken marks a token by its id, or all of a name, as revoked, and
// returns the ids of those that match. CodeNotFound when none does.
func (s *Store) RevokeToken(ctx context.Context, idOrName string, now time.Time) ([]string, error) {
	rows, err := s.write.QueryContext(ctx, `UPDATE tokens SET revoked_at = CASE revoked_at WHEN 0 THEN ? ELSE revoked_at END
		WHERE id = ? OR name = ? RETURNING id`, now.UnixNano(), idOrName, idOrName)
	if err != nil {
		return nil, s.explain("write", err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, s.explain("write", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("write", err)
	}
	if len(ids) == 0 {
		return nil, berth.Errorf(berth.CodeNotFound, "there is no token %q: see berth server token list", idOrName)
	}
	return ids, nil
}

// RevokedTokens returns the ids of the tokens that were revoked since a time, by
// the clock of whoever did.
func (s *Store) RevokedTokens(ctx context.Context, since time.Time) ([]string, error) {
	return s.texts(ctx, "SELECT id FROM tokens WHERE revoked_at > ?", since.UnixNano())
}

// TouchToken records when a token was used.
func (s *Store) TouchToken(ctx context.Context, id string, now time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE tokens SET last_used_at = ? WHERE id = ?", now.UnixNano(), id)
	return s.explain("write", err)
}

func scanToken(scan func(...any) error) (berth.Token, error) {
	var t berth.Token
	var infrastructures string
	var created, expires, used, revoked int64
	if err := scan(&t.ID, &t.Name, &t.Role, &infrastructures, &created, &expires, &used, &revoked); err != nil {
		return t, err
	}
	t.CreatedAt = time.Unix(0, created).UTC()
	t.ExpiresAt, t.LastUsedAt, t.RevokedAt = instant(expires), instant(used), instant(revoked)
	return t, json.Unmarshal([]byte(infrastructures), &t.Infrastructures)
}

func nanoseconds(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.UnixNano()
}

func instant(nanoseconds int64) *time.Time {
	if nanoseconds == 0 {
		return nil
	}
	t := time.Unix(0, nanoseconds).UTC()
	return &t
}
