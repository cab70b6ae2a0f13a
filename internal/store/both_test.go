package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// onBoth runs a test of what every store promises, on a SQLite file and on a
// real PostgreSQL server. open opens the same store each time.
func onBoth(t *testing.T, test func(t *testing.T, open func() *Store)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "berth.db")
		test(t, func() *Store { return opened(t, path) })
	})
	t.Run("postgres", func(t *testing.T) {
		address := pgtest.URL(t)
		test(t, func() *Store { return openedURL(t, address) })
	})
}

func openedURL(t testing.TB, address string) *Store {
	t.Helper()
	s, err := OpenURL(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
