package store

import (
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func TestATokenIsFoundByItsSecretUntilItIsRevoked(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		expires := t0.Add(time.Hour)
		token := berth.Token{ID: "one", Name: "ann", Role: berth.RoleWrite, Infrastructures: []string{"here"}, CreatedAt: t0, ExpiresAt: &expires, Secret: "lost on its way"}
		if err := s.AddToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		token.Secret = "known"
		if err := s.AddToken(t.Context(), token); err != nil {
			t.Errorf("asked for again, as the answer was lost: %v", err)
		}
		if _, err := s.TokenBySecret(t.Context(), "lost on its way"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("the secret before is good: %v", err)
		}
		if err := s.TouchToken(t.Context(), "one", t0.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		got, err := s.TokenBySecret(t.Context(), "known")
		if err != nil || got.ID != "one" || got.Name != "ann" || len(got.Infrastructures) != 1 || got.LastUsedAt == nil || got.ExpiresAt == nil || got.RevokedAt != nil {
			t.Errorf("%+v, %v", got, err)
		}
		if err := s.AddToken(t.Context(), token); berth.CodeOf(err) != berth.CodeConflict {
			t.Errorf("one that was used was made again: %v", err)
		}
		if ids, err := s.RevokeToken(t.Context(), "ann", t0); err != nil || len(ids) != 1 {
			t.Errorf("%v, %v", ids, err)
		}
		for since, want := range map[time.Time]int{t0.Add(-time.Hour): 1, t0.Add(time.Hour): 0} {
			if ids, err := s.RevokedTokens(t.Context(), since); err != nil || len(ids) != want {
				t.Errorf("revoked since %s: %v, %v", since, ids, err)
			}
		}
		if got, err := s.TokenBySecret(t.Context(), "known"); err != nil || got.RevokedAt == nil {
			t.Errorf("%+v, %v", got, err)
		}
		if list, err := s.Tokens(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := s.RevokeToken(t.Context(), "bob", t0); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("one that there isn't: %v", err)
		}
	})
}

func TestAnInfrastructureIsKnownByWhatItWas(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		for _, identity := range []string{"", "first", "second"} {
			if _, got, err := s.Identity(t.Context(), "here"); err != nil || identity == "" && got != "" {
				t.Errorf("%q, %v", got, err)
			}
			if err := s.SetIdentity(t.Context(), "here", "https://cluster", identity, t0); err != nil {
				t.Fatal(err)
			}
			if address, got, err := s.Identity(t.Context(), "here"); err != nil || got != identity || address != "https://cluster" {
				t.Errorf("%q, %q, %v", address, got, err)
			}
		}
		if err := s.ForgetIdentity(t.Context(), "here"); err != nil {
			t.Fatal(err)
		}
		if _, got, err := s.Identity(t.Context(), "here"); err != nil || got != "" {
			t.Errorf("%q, %v", got, err)
		}
		if err := s.Probe(t.Context()); err != nil {
			t.Error(err)
		}
		if counts, err := s.CountByState(t.Context()); err != nil || len(counts) != 0 {
			t.Errorf("%v, %v", counts, err)
		}
		if newest, err := s.NewestTask(t.Context()); err != nil || newest != "" {
			t.Errorf("%q, %v", newest, err)
		}
	})
}
