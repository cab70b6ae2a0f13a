package control

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/store"
)

// databaseName is a file of a data directory whose store is in a database. A
// command that doesn't know of that would begin another store beside it.
const databaseName = "database"

// openStore opens the store of a data directory: its own file, or a database.
func openStore(ctx context.Context, c Config) (*store.Store, error) {
	marker := filepath.Join(c.DataDir, databaseName)
	if c.Database != "" {
		st, err := store.OpenURL(ctx, c.Database.Reveal())
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(c.DataDir, "berth.db")); err == nil {
			c.Log.Warn("tasks of an earlier store in this data directory are left alone: the database has others", "file", filepath.Join(c.DataDir, "berth.db"))
		}
		if err := config.WriteSecret(marker, []byte(st.Place()+"\n")); err != nil {
			st.Close()
			return nil, err
		}
		return st, nil
	}
	switch text, err := os.ReadFile(marker); {
	case err == nil:
		return nil, berth.Errorf(berth.CodeConflict, "the data directory %s is of a server whose store is %s, and which doesn't run: start berth server --database with its address (or BERTH_DATABASE); or remove %s to begin a store here", c.DataDir, strings.TrimSpace(string(text)), marker)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w", err)
	}
	st, err := store.Open(ctx, filepath.Join(c.DataDir, "berth.db"))
	if err != nil {
		return nil, err
	}
	if err := st.BelongTo(ctx, c.InfraPath); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// StoreCheck is what was found by looking at all of a store.
type StoreCheck = store.Check

// CheckStore looks at all of the store of a data directory, and changes nothing.
func CheckStore(ctx context.Context, c Config) (*StoreCheck, error) {
	if c.Database != "" {
		return store.CheckURL(ctx, c.Database.Reveal())
	}
	if text, err := os.ReadFile(filepath.Join(c.DataDir, databaseName)); err == nil {
		return nil, berth.Errorf(berth.CodeInvalid, "the store of %s is %s: give its address with --database or BERTH_DATABASE", c.DataDir, strings.TrimSpace(string(text)))
	}
	return store.CheckFile(ctx, filepath.Join(c.DataDir, "berth.db"))
}

// engineStore is the store as the engine has it: what it commits is fenced
// where several servers share it.
func (h *Host) engineStore() engine.Store {
	if h.fleet == nil {
		return h.store
	}
	return fencedStore{h.store, h.fleet}
}

// fencedStore commits what concerns an infrastructure under its lease alone.
type fencedStore struct {
	*store.Store
	fleet *fleet
}

func (s fencedStore) Commit(ctx context.Context, changes []berth.Change) error {
	if len(changes) == 0 {
		return nil
	}
	// All changes are of one loop, which may give tasks to another.
	own, err := s.fleet.lease(engine.InfrastructureOf(ctx))
	if err != nil {
		return err
	}
	seen := map[string]bool{own.Infrastructure: true}
	var beside []berth.Lease
	for i := range changes {
		name := changes[i].Life.Task.Infrastructure
		if seen[name] {
			continue
		}
		seen[name] = true
		other, err := s.fleet.lease(name)
		if err != nil {
			return err
		}
		beside = append(beside, other)
	}
	return s.CommitUnder(ctx, own, changes, beside...)
}

func (s fencedStore) AddArray(ctx context.Context, key string, array *berth.Array, next func() (*berth.Change, error)) error {
	lease, err := s.fleet.lease(array.Infrastructure)
	if err != nil {
		return err
	}
	return s.AddArrayUnder(ctx, lease, key, array, next)
}
