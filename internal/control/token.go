package control

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

// tokenPrefix lets people, and programs that look for secrets, know a token.
const tokenPrefix = "berth_"

// touchInterval is how coarsely the last use of a token is known: each note of
// it is a write.
const touchInterval = 5 * time.Minute

func (h *Host) CreateToken(ctx context.Context, r berth.TokenRequest) (berth.Token, error) {
	if caller := h.caller(ctx); !caller.MayAdminister() {
		return berth.Token{}, needs(caller, berth.RoleAdmin, "make tokens")
	}
	if err := r.Validate(); err != nil {
		return berth.Token{}, err
	}
	if r.Key == "" {
		r.Key = xid.New().String()
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	now := time.Now().UTC()
	t := berth.Token{
		ID: r.Key, Name: r.Name, Role: r.Role, Infrastructures: append([]string{}, r.Infrastructures...), CreatedAt: now,
		Secret: berth.Secret(tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])),
	}
	if r.TTL > 0 {
		expires := now.Add(r.TTL)
		t.ExpiresAt = &expires
	}
	if err := h.store.AddToken(ctx, t); err != nil {
		return berth.Token{}, err
	}
	h.config.Log.Info("a token was made", "id", t.ID, "name", t.Name, "role", t.Role, "by", h.caller(ctx).Name)
	return t, nil
}

func (h *Host) Tokens(ctx context.Context) ([]berth.Token, error) {
	if caller := h.caller(ctx); !caller.MayAdminister() {
		return nil, needs(caller, berth.RoleAdmin, "list tokens")
	}
	return h.store.Tokens(ctx)
}

func (h *Host) RevokeToken(ctx context.Context, idOrName string) error {
	if caller := h.caller(ctx); !caller.MayAdminister() {
		return needs(caller, berth.RoleAdmin, "revoke tokens")
	}
	ids, err := h.store.RevokeToken(ctx, idOrName, time.Now())
	if err != nil {
		return err
	}
	h.sessions.end(ids)
	h.config.Log.Info("tokens were revoked", "ids", ids, "by", h.caller(ctx).Name)
	return nil
}

// Authenticate returns whose token a secret is. CodeUnauthorized, with what to
// do, when it is none that is good.
func (h *Host) Authenticate(ctx context.Context, secret string) (berth.Token, error) {
	const again = "ask the server's administrator for a token (berth server token create)"
	if strings.TrimSpace(secret) == "" {
		return berth.Token{}, berth.Errorf(berth.CodeUnauthorized, "a token is needed: give one with --token, BERTH_TOKEN or BERTH_TOKEN_FILE; %s", again)
	}
	t, err := h.store.TokenBySecret(ctx, secret)
	switch {
	case berth.CodeOf(err) == berth.CodeNotFound:
		return berth.Token{}, berth.Errorf(berth.CodeUnauthorized, "the token is wrong: this server doesn't know it; %s", again)
	case err != nil:
		return berth.Token{}, err
	case t.RevokedAt != nil:
		return berth.Token{}, berth.Errorf(berth.CodeUnauthorized, "the token of %s was revoked on %s; %s", t.Name, t.RevokedAt.Format(time.RFC3339), again)
	}
	now := time.Now()
	if t.ExpiresAt != nil && !now.Before(*t.ExpiresAt) {
		return berth.Token{}, berth.Errorf(berth.CodeUnauthorized, "the token of %s expired on %s; %s", t.Name, t.ExpiresAt.Format(time.RFC3339), again)
	}
	if t.LastUsedAt == nil || now.Sub(*t.LastUsedAt) > touchInterval {
		if err := h.store.TouchToken(ctx, t.ID, now); err != nil && ctx.Err() == nil {
			h.config.Log.Warn("cannot note that a token was used", "id", t.ID, "error", err)
		}
	}
	return t, nil
}
