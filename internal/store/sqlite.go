package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

//go:embed migrations/*.sql
var sqliteMigrations embed.FS

// sqliteFile is a store in one SQLite file.
type sqliteFile struct {
	path   string
	write  *database // one connection: SQLite has one writer
	insert *sql.Stmt
	update *sql.Stmt
	event  *sql.Stmt
}

// Open opens the store in a file, makes it when there is none, and migrates it
// to this version, keeping a copy of what an older one wrote. CodeConflict for a
// file that a newer version wrote.
func Open(ctx context.Context, path string) (*Store, error) {
	// SQLite would make it as open to others as the umask has it, and what it
	// keeps beside it likewise; the directory may be one that others can enter.
	if file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		file.Close() // SQLite says why it can't be made
	}
	f := &sqliteFile{path: path}
	s := &Store{dialect: f, place: path}
	// Full durability costs one fsync a commit, and commits are made in groups.
	var err error
	if s.write, err = openFile(path, "_txlock=immediate&_pragma=synchronous(FULL)"); err == nil {
		s.write.SetMaxOpenConns(1)
		f.write = s.write
		s.read, err = openFile(path, "_pragma=query_only(1)")
	}
	if err == nil {
		s.read.SetMaxOpenConns(4)
		err = f.migrate(ctx)
	}
	if err == nil {
		err = f.prepare(ctx)
	}
	return s.opened(ctx, err)
}

func openFile(path, options string) (*database, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path}
	db, err := sql.Open("sqlite", name.String()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&"+options)
	return &database{DB: db}, err
}

func (f *sqliteFile) migrate(ctx context.Context) error {
	// The version is asked for first: goose's own check costs several writes at
	// each start, and this one a read.
	sources, err := fs.Sub(sqliteMigrations, "migrations")
	if err != nil {
		return err
	}
	files, err := fs.Glob(sources, "*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := f.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == len(files):
		return nil
	case version > len(files):
		return newer(f.path, version, len(files), "or another --data directory")
	case version > 0:
		if err := f.copyTo(ctx, fmt.Sprintf("%s.before-%d", f.path, len(files))); err != nil {
			return err
		}
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, f.write.DB, sources)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return err
	}
	crash.Point("store.migrated")
	_, err = f.write.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(files)))
	return err
}

func newer(place string, version, known int, or string) error {
	return berth.Errorf(berth.CodeConflict, "%s was written by a newer version of berth (schema %d, this one knows %d): use that version, %s", place, version, known, or)
}

// copyTo makes a copy of the store as it is: complete, or not there at all. One
// that is there already is of before an attempt that failed, and stays.
func (f *sqliteFile) copyTo(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	passing := path + ".new"
	if err := os.Remove(passing); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(passing, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return berth.Errorf(berth.CodeForbidden, "cannot copy %s before it is changed for this version: %w", f.path, err)
	}
	defer file.Close()
	if _, err := f.write.ExecContext(ctx, "VACUUM INTO ?", passing); err != nil {
		os.Remove(passing)
		return berth.Errorf(berth.CodeExhausted, "cannot copy %s to %s before it is changed for this version (it takes as much space again): %w", f.path, path, err)
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(passing, path)
}

func (f *sqliteFile) prepare(ctx context.Context) error {
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&f.insert, "INSERT INTO tasks (id, key, state, infrastructure, name, owner, live, share, precedence, array_id, array_index, life) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
		{&f.update, "UPDATE tasks SET state = ?, infrastructure = ?, live = ?, share = ?, life = ? WHERE id = ?"},
		{&f.event, "INSERT INTO events (task_id, attempt, type, message, at) VALUES (?, ?, ?, ?, ?)"},
	} {
		var err error
		if *p.to, err = f.write.PrepareContext(ctx, p.text); err != nil { //nolint:sqlclosecheck // close does
			return err
		}
	}
	return nil
}

func (f *sqliteFile) commit(ctx context.Context, w writing) error {
	if w.lease != (berth.Lease{}) {
		return berth.Errorf(berth.CodeUnsupported, "a file has one host, and no leases")
	}
	tx, err := f.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	if a := w.array; a != nil {
		if _, err := tx.ExecContext(ctx, insertArray, a.id, a.key, a.infrastructure, a.owner, a.body); err != nil {
			return err
		}
	}
	insert, update, event := tx.StmtContext(ctx, f.insert), tx.StmtContext(ctx, f.update), tx.StmtContext(ctx, f.event) //nolint:sqlclosecheck // the end of the transaction does
	for {
		c, err := w.next()
		if err != nil {
			return err
		}
		if c == nil {
			crash.Point("store.before-commit")
			return tx.Commit()
		}
		row, err := rowOf(c)
		if err != nil {
			return err
		}
		if c.New {
			_, err = insert.ExecContext(ctx, row.id, row.key, row.state, row.infrastructure, row.name, row.owner, row.live, row.share, row.precedence, row.array, row.index, row.life)
		} else {
			_, err = update.ExecContext(ctx, row.state, row.infrastructure, row.live, row.share, row.life, row.id)
		}
		if err != nil {
			return err
		}
		for i := range c.Events {
			e := &c.Events[i]
			if _, err := event.ExecContext(ctx, e.TaskID, e.Attempt, e.Type, e.Message, e.At.UnixNano()); err != nil {
				return err
			}
		}
	}
}

func (f *sqliteFile) label(key, value string) (condition string, args []any) {
	return "EXISTS (SELECT 1 FROM json_each(CAST(life AS TEXT), '$.Task.spec.labels') l WHERE l.key = ? AND l.value = ?)", []any{key, value}
}

func (f *sqliteFile) close() {
	for _, stmt := range []*sql.Stmt{f.insert, f.update, f.event} {
		if stmt != nil {
			stmt.Close()
		}
	}
}

// damaged reports whether an error says that the file is no whole database.
func damaged(err error) bool {
	var told *sqlite.Error
	return errors.As(err, &told) && (told.Code()&0xff == sqlite3.SQLITE_CORRUPT || told.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// explain turns an error of SQLite into one for a person.
func (f *sqliteFile) explain(what string, err error) error {
	var sqlErr *sqlite.Error
	if errors.As(err, &sqlErr) {
		switch sqlErr.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return berth.Errorf(berth.CodeExhausted, "cannot %s %s: the disk is full; free some space, nothing was lost: %w", what, f.path, err)
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
			return berth.Errorf(berth.CodeForbidden, "cannot %s %s: it, or its directory, can't be written; name another directory with --data: %w", what, f.path, err)
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return berth.Errorf(berth.CodeInternal, "cannot %s %s: the file is damaged (berth server check says how far); restore it from a copy, or begin anew with another --data directory: %w", what, f.path, err)
		case sqlite3.SQLITE_IOERR:
			return berth.Errorf(berth.CodeExhausted, "cannot %s %s: the disk is full or faulty; free some space, or see to the disk; nothing was lost: %w", what, f.path, err)
		}
	}
	return nil
}
