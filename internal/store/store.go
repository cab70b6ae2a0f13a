// Package store keeps tasks, events and what is known of infrastructures in
// SQL: SQLite, in a file of the data directory. It stores what it is given and
// decides nothing: the state machine is package berth, who acts is the engine.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/rs/xid"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/berth-run/berth"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a store in one SQLite file. Methods are safe for concurrent use.
type Store struct {
	write    *sql.DB // one connection: SQLite has one writer
	read     *sql.DB
	instance string
	agentKey []byte
	path     string
}

// Open opens the store in a file, makes it when there is none, and migrates it
// to this version. CodeConflict for a file that a newer version wrote.
func Open(ctx context.Context, path string) (*Store, error) {
	s := &Store{path: path}
	// SQLite would make it as open to others as the umask has it, and what it
	// keeps beside it likewise; the directory may be one that others can enter.
	if file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		file.Close() // SQLite says why it can't be made
	}
	var err error
	// Full durability costs one fsync a commit, and commits are made in groups.
	if s.write, err = open(path, "_txlock=immediate&_pragma=synchronous(FULL)"); err == nil {
		s.read, err = open(path, "_pragma=query_only(1)")
	}
	if err != nil {
		return nil, s.explain("open", err)
	}
	s.write.SetMaxOpenConns(1)
	s.read.SetMaxOpenConns(4)
	if err := s.migrate(ctx); err != nil {
		s.Close()
		return nil, s.explain("open", err)
	}
	if s.instance, err = s.metaOnce(ctx, "instance", xid.New().String()); err != nil {
		s.Close()
		return nil, s.explain("open", err)
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	stored, err := s.metaOnce(ctx, "agent-key", hex.EncodeToString(key[:]))
	if err == nil {
		s.agentKey, err = hex.DecodeString(stored)
	}
	if err != nil {
		s.Close()
		return nil, s.explain("open", err)
	}
	return s, nil
}

func open(path, options string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path}
	return sql.Open("sqlite", name.String()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&"+options)
}

func (s *Store) migrate(ctx context.Context) error {
	// The version is asked for first: goose's own check costs several writes at
	// each start, and this one a read.
	sources, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	files, err := fs.Glob(sources, "*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := s.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == len(files):
		return nil
	case version > len(files):
		return berth.Errorf(berth.CodeConflict, "%s was written by a newer version of berth (schema %d, this one knows %d): use that version, or another --data directory", s.path, version, len(files))
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, sources)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return err
	}
	_, err = s.write.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(files)))
	return err
}

// Close closes the file.
func (s *Store) Close() error {
	var err error
	if s.read != nil {
		err = s.read.Close()
	}
	if s.write != nil {
		err = errors.Join(err, s.write.Close())
	}
	return err
}

// Instance returns the id of this store, which labels all that it creates.
func (s *Store) Instance() string { return s.instance }

// AgentKey returns the secret that what belongs to one attempt is derived from.
func (s *Store) AgentKey() []byte { return s.agentKey }

// metaOnce returns the value of a key, which is set now if it never was.
func (s *Store) metaOnce(ctx context.Context, key, value string) (string, error) {
	var stored string
	err := s.write.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&stored)
	if !errors.Is(err, sql.ErrNoRows) {
		return stored, err
	}
	if _, err := s.write.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING", key, value); err != nil {
		return "", err
	}
	return value, s.write.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&value)
}

// BelongTo ties the store to one infra.yml, the first that it is opened with.
func (s *Store) BelongTo(ctx context.Context, infraPath string) error {
	stored, err := s.metaOnce(ctx, "infra", infraPath)
	if err != nil {
		return s.explain("read", err)
	}
	if stored != infraPath {
		return berth.Errorf(berth.CodeConflict, "the data directory %s belongs to %s, not to %s: name another with --data", filepath.Dir(s.path), stored, infraPath)
	}
	return nil
}

// Commit stores all changes or none, and sets the events' Seq.
func (s *Store) Commit(ctx context.Context, changes []berth.Change) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.explain("write", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	for i := range changes {
		if err := commitOne(ctx, tx, &changes[i]); err != nil {
			return s.explain("write", err)
		}
	}
	return s.explain("write", tx.Commit())
}

func commitOne(ctx context.Context, tx *sql.Tx, c *berth.Change) error {
	life, err := json.Marshal(c.Life)
	if err != nil {
		return err
	}
	t, live := &c.Life.Task, liveness(c.Life)
	if c.New {
		name := ""
		if t.Name != nil {
			name = *t.Name
		}
		array, index := "", 0
		if t.Array != nil {
			array, index = t.Array.ID, t.Array.Index
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO tasks (id, key, state, infrastructure, name, owner, live, share, precedence, array_id, array_index, life) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			t.ID, c.Life.Key, t.State, t.Infrastructure, name, t.Owner, live, c.Life.Share, -t.Spec.Priority, array, index, life)
	} else {
		_, err = tx.ExecContext(ctx, "UPDATE tasks SET state = ?, infrastructure = ?, live = ?, life = ? WHERE id = ?",
			t.State, t.Infrastructure, live, life, t.ID)
	}
	if err != nil {
		return err
	}
	for i := range c.Events {
		e := &c.Events[i]
		result, err := tx.ExecContext(ctx, "INSERT INTO events (task_id, attempt, type, message, at) VALUES (?, ?, ?, ?, ?)",
			e.TaskID, e.Attempt, e.Type, e.Message, e.At.UnixNano())
		if err != nil {
			return err
		}
		if e.Seq, err = result.LastInsertId(); err != nil {
			return err
		}
	}
	return nil
}

// liveness is the column live of a life.
func liveness(l *berth.Life) int {
	switch {
	case l.Settled():
		return settled
	case l.Parked():
		return parked
	}
	return attended
}

// What the column live says.
const (
	settled  = iota // nothing is left to be done
	attended        // something is under way
	parked          // it merely waits to be let through
)

// Life returns a task with its attempts. CodeNotFound when there is none.
func (s *Store) Life(ctx context.Context, id string) (*berth.Life, error) {
	return s.one(ctx, "SELECT life FROM tasks WHERE id = ?", id)
}

// ByKey returns the task that was submitted with an idempotency key.
// CodeNotFound when there is none.
func (s *Store) ByKey(ctx context.Context, key string) (*berth.Life, error) {
	return s.one(ctx, "SELECT life FROM tasks WHERE key = ?", key)
}

func (s *Store) one(ctx context.Context, query, argument string) (*berth.Life, error) {
	var data []byte
	err := s.read.QueryRowContext(ctx, query, argument).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, berth.NoSuchTask(argument)
	}
	if err != nil {
		return nil, s.explain("read", err)
	}
	life, err := decode(data)
	return life, s.explain("read", err)
}

func decode(data []byte) (*berth.Life, error) {
	life := &berth.Life{}
	err := json.Unmarshal(data, life)
	if string(life.Task.Result) == "null" {
		life.Task.Result = nil
	}
	if life.Task.Steps == nil {
		life.Task.Steps = []berth.StepStatus{}
	}
	return life, err
}

// Live returns the tasks of an infrastructure of which something is under way,
// oldest first: neither the settled ones, nor those that merely wait to be let
// through; see Queued.
func (s *Store) Live(ctx context.Context, infrastructure string) ([]*berth.Life, error) {
	return s.lives(ctx, "SELECT life FROM tasks WHERE live = 1 AND infrastructure = ? ORDER BY id", infrastructure)
}

// LiveInfrastructures names the infrastructures that have tasks which aren't settled.
func (s *Store) LiveInfrastructures(ctx context.Context) ([]string, error) {
	return s.texts(ctx, "SELECT DISTINCT infrastructure FROM tasks WHERE live > 0")
}

// Tasks lists the tasks that a caller may see, newest first.
func (s *Store) Tasks(ctx context.Context, q berth.TaskQuery, caller berth.Caller) (berth.TaskPage, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	var where []string
	var args []any
	add := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	oneOf := func(column string, values []any) {
		if len(values) > 0 {
			add(column+" IN (?"+strings.Repeat(",?", len(values)-1)+")", values...)
		}
	}
	oneOf("state", anys(q.States))
	oneOf("infrastructure", anys(caller.Infrastructures))
	if caller.Role != berth.RoleAdmin {
		add("owner = ?", caller.Name)
	}
	if q.Owner != "" {
		add("owner = ?", q.Owner)
	}
	if q.Infrastructure != "" {
		add("infrastructure = ?", q.Infrastructure)
	}
	if q.Name != "" {
		add("name = ?", q.Name)
	}
	for key, value := range q.Labels {
		add("EXISTS (SELECT 1 FROM json_each(CAST(life AS TEXT), '$.Task.spec.labels') l WHERE l.key = ? AND l.value = ?)", key, value)
	}
	if q.Array != "" {
		add("array_id = ?", q.Array)
	}
	if q.After != "" {
		add("id < ?", q.After)
	}
	query := "SELECT life FROM tasks"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	lives, err := s.lives(ctx, query+" ORDER BY id DESC LIMIT ?", append(args, q.Limit+1)...)
	if err != nil {
		return berth.TaskPage{}, err
	}
	page := berth.TaskPage{Tasks: []berth.Task{}}
	for i, life := range lives {
		if i == q.Limit {
			page.Next = page.Tasks[i-1].ID
			break
		}
		page.Tasks = append(page.Tasks, life.Task)
	}
	return page, nil
}

func anys[T ~string](list []T) []any {
	out := make([]any, len(list))
	for i, value := range list {
		out[i] = string(value)
	}
	return out
}

func (s *Store) lives(ctx context.Context, query string, args ...any) ([]*berth.Life, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	var lives []*berth.Life
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, s.explain("read", err)
		}
		life, err := decode(data)
		if err != nil {
			return nil, s.explain("read", err)
		}
		lives = append(lives, life)
	}
	return lives, s.explain("read", rows.Err())
}

// Events returns at most limit events of a task with a Seq above after, in order.
func (s *Store) Events(ctx context.Context, taskID string, after int64, limit int) ([]berth.Event, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT seq, attempt, type, message, at FROM events WHERE task_id = ? AND seq > ? ORDER BY seq LIMIT ?", taskID, after, limit)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	var events []berth.Event
	for rows.Next() {
		e := berth.Event{TaskID: taskID}
		var at int64
		if err := rows.Scan(&e.Seq, &e.Attempt, &e.Type, &e.Message, &at); err != nil {
			return nil, s.explain("read", err)
		}
		e.At = time.Unix(0, at).UTC()
		events = append(events, e)
	}
	return events, s.explain("read", rows.Err())
}

// Identity returns what an infrastructure was when it was last seen: its
// server's address and its namespace's UID. Empty strings when it never was.
func (s *Store) Identity(ctx context.Context, name string) (address, identity string, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT address, identity FROM infrastructures WHERE name = ?", name).Scan(&address, &identity)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	return address, identity, s.explain("read", err)
}

// SetIdentity records what an infrastructure is.
func (s *Store) SetIdentity(ctx context.Context, name, address, identity string, now time.Time) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO infrastructures (name, address, identity, seen_at) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET address = excluded.address, identity = excluded.identity, seen_at = excluded.seen_at`, name, address, identity, now.UnixNano())
	return s.explain("write", err)
}

// ForgetIdentity lets an infrastructure be another one from now on.
func (s *Store) ForgetIdentity(ctx context.Context, name string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM infrastructures WHERE name = ?", name)
	return s.explain("write", err)
}

// explain turns an error of SQLite into one for a person.
func (s *Store) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var known *berth.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var sqlErr *sqlite.Error
	if errors.As(err, &sqlErr) {
		switch sqlErr.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return berth.Errorf(berth.CodeExhausted, "cannot %s %s: the disk is full; free some space, nothing was lost: %w", what, s.path, err)
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
			return berth.Errorf(berth.CodeForbidden, "cannot %s %s: it, or its directory, can't be written; name another directory with --data: %w", what, s.path, err)
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return berth.Errorf(berth.CodeInternal, "cannot %s %s: the file is damaged; restore it from a copy, or begin anew with another --data directory: %w", what, s.path, err)
		case sqlite3.SQLITE_IOERR:
			return berth.Errorf(berth.CodeExhausted, "cannot %s %s: the disk is full or faulty; free some space, or see to the disk; nothing was lost: %w", what, s.path, err)
		}
	}
	return berth.Errorf(berth.CodeInternal, "cannot %s %s: %w", what, s.path, err)
}
