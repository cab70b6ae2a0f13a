package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
)

// renewed is a token of a cluster that was renewed, and what from.
type renewed struct {
	Source string `json:"source"`
	Token  string `json:"token"`
}

func renewedKey(infrastructure string) string { return "renewed-token/" + infrastructure }

// RenewedToken returns the token that KeepToken kept for an infrastructure, and
// what it was renewed from; empty where there is none.
func (s *Store) RenewedToken(ctx context.Context, infrastructure string) (source, token string, err error) {
	var value string
	err = s.read.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", renewedKey(infrastructure)).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	var kept renewed
	if err == nil {
		err = json.Unmarshal([]byte(value), &kept)
	}
	return kept.Source, kept.Token, s.explain("read", err)
}

// KeepToken keeps a renewed token, in place of the one before.
func (s *Store) KeepToken(ctx context.Context, infrastructure, source, token string) error {
	value, err := json.Marshal(renewed{source, token})
	if err == nil {
		_, err = s.write.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", renewedKey(infrastructure), string(value))
	}
	return s.explain("write", err)
}
