package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/berth-run/berth"
)

// olderFile makes the store of an earlier version, with one task.
func olderFile(t *testing.T, schema int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berth.db")
	db, err := openFile(path, "_pragma=synchronous(FULL)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	sources, err := fs.Sub(sqliteMigrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db.DB, sources)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	c := newLife("old", "here", nil)
	c.Life.Cancel(t0)
	life, err := json.Marshal(c.Life)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []struct {
		text string
		args []any
	}{
		{"INSERT INTO tasks (id, key, state, infrastructure, name, owner, live, life) VALUES ('old', 'key-old', 'cancelled', 'here', '', 'ann', 0, ?)", []any{life}},
		{"INSERT INTO events (task_id, attempt, type, message, at) VALUES ('old', 0, 'Queued', '', 1)", nil},
		{"PRAGMA user_version = " + string(rune('0'+schema)), nil},
	} {
		if _, err := db.ExecContext(t.Context(), statement.text, statement.args...); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestAFileOfAnOlderVersionIsCopiedAndThenMigrated(t *testing.T) {
	path := olderFile(t, 3)
	if _, err := CheckFile(t.Context(), path); berth.CodeOf(err) != berth.CodeConflict {
		t.Errorf("checked: %v", err)
	}
	s := opened(t, path)
	if life, err := s.Life(t.Context(), "old"); err != nil || life.Task.State != berth.StateCancelled {
		t.Errorf("after the migration: %+v, %v", life, err)
	}
	if err := s.Commit(t.Context(), []berth.Change{newLife("new", "here", nil)}); err != nil {
		t.Error(err)
	}
	if c, err := CheckFile(t.Context(), path); err != nil || !c.OK() {
		t.Errorf("checked after the migration: %+v, %v", c, err)
	}
	copies, err := filepath.Glob(path + ".before-*")
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies: %v, %v", copies, err)
	}
	if info, err := os.Stat(copies[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the copy: %v, %v", info.Mode(), err)
	}
	db, err := sql.Open("sqlite", copies[0])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version, tasks int
	if err := db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version); err != nil || version != 3 {
		t.Errorf("the copy is of schema %d, %v", version, err)
	}
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM tasks").Scan(&tasks); err != nil || tasks != 1 {
		t.Errorf("the copy has %d tasks, %v", tasks, err)
	}

	s.Close()
	opened(t, path)
	if copies, _ := filepath.Glob(path + ".before-*"); len(copies) != 1 {
		t.Errorf("copied again: %v", copies)
	}
}

func TestAFileThatCannotBeCopiedIsNotMigrated(t *testing.T) {
	path := olderFile(t, 3)
	known, err := fs.Glob(sqliteMigrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(fmt.Sprintf("%s.before-%d.new/kept", path, len(known)), 0o700); err != nil { // in the way of the copy
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); err == nil {
		t.Fatal("opened")
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version int
	if err := db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version); err != nil || version != 3 {
		t.Errorf("it is of schema %d, %v", version, err)
	}
}
