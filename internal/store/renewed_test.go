package store

import (
	"testing"
)

func TestARenewedTokenIsKeptForItsInfrastructure(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		if source, token, err := s.RenewedToken(t.Context(), "a"); source != "" || token != "" || err != nil {
			t.Errorf("before anything was kept: %q, %q, %v", source, token, err)
		}
		for _, want := range []string{"first", "second"} {
			if err := s.KeepToken(t.Context(), "a", "of a file", want); err != nil {
				t.Fatal(err)
			}
			if source, token, err := s.RenewedToken(t.Context(), "a"); source != "of a file" || token != want || err != nil {
				t.Errorf("%q, %q, %v", source, token, err)
			}
		}
		if _, token, _ := s.RenewedToken(t.Context(), "b"); token != "" {
			t.Errorf("another infrastructure has the token %q", token)
		}
	})
}
