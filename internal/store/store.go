// Package store keeps tasks, events and what is known of infrastructures in
// SQL: in SQLite, in a file of the data directory, or in PostgreSQL, where
// several servers share it. It stores what it is given and
// decides nothing: the state machine is package berth, who acts is the engine.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

// Store is a store in one SQLite file, or in a PostgreSQL database. Methods are
// safe for concurrent use.
type Store struct {
	write    *database
	read     *database
	dialect  dialect
	place    string // where it is, for people
	instance string
	agentKey []byte
}

// dialect is what is not the same in SQLite and PostgreSQL.
type dialect interface {
	// commit stores all that a writing holds, or nothing.
	commit(ctx context.Context, w writing) error

	// label returns a condition on tasks: they have a label with a value.
	label(key, value string) (condition string, args []any)

	// explain turns an error of the database into one for a person; nil for
	// one that it knows nothing of.
	explain(what string, err error) error

	close()
}

// opened reads what a store is asked for often, or closes one that could not be
// opened.
func (s *Store) opened(ctx context.Context, err error) (*Store, error) {
	if err == nil {
		s.instance, err = s.metaOnce(ctx, "instance", xid.New().String())
	}
	crash.Point("store.instance-named")
	if err == nil {
		var key [32]byte
		_, _ = rand.Read(key[:]) // never fails
		var stored string
		if stored, err = s.metaOnce(ctx, "agent-key", hex.EncodeToString(key[:])); err == nil {
			s.agentKey, err = hex.DecodeString(stored)
		}
	}
	if err != nil {
		s.Close()
		return nil, s.explain("open", err)
	}
	return s, nil
}

// Close closes the connections.
func (s *Store) Close() error {
	s.dialect.close()
	var err error
	if s.read != nil {
		err = s.read.Close()
	}
	if s.write != nil && s.write != s.read {
		err = errors.Join(err, s.write.Close())
	}
	return err
}

// Place says where the store is, for people: without a password.
func (s *Store) Place() string { return s.place }

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
		return berth.Errorf(berth.CodeConflict, "the data directory %s belongs to %s, not to %s: name another with --data", filepath.Dir(s.place), stored, infraPath)
	}
	return nil
}

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
	if err != nil {
		err = fmt.Errorf("what is stored of a task is damaged (berth server check says which): %w", err)
	}
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

// LiveInfrastructures names the infrastructures that have tasks which aren't
// settled, or runs which have not ended, or schedules.
func (s *Store) LiveInfrastructures(ctx context.Context) ([]string, error) {
	return s.texts(ctx, "SELECT infrastructure FROM tasks WHERE live = 1 UNION SELECT infrastructure FROM tasks WHERE live = 2 UNION SELECT infrastructure FROM runs WHERE state = 'running' UNION SELECT infrastructure FROM schedules WHERE paused = 0 UNION SELECT infrastructure FROM clusters WHERE live = 1") // by an index each
}

// visibleTo is the condition for rows that a caller may see, by their columns
// infrastructure and owner.
func visibleTo(caller berth.Caller) (where []string, args []any) {
	where = []string{"1 = 1"}
	if n := len(caller.Infrastructures); n > 0 {
		where, args = append(where, "infrastructure IN (?"+strings.Repeat(",?", n-1)+")"), anys(caller.Infrastructures)
	}
	if caller.Role != berth.RoleAdmin {
		where, args = append(where, "owner = ?"), append(args, caller.Name)
	}
	return where, args
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
		condition, values := s.dialect.label(key, value)
		add(condition, values...)
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

// explain turns an error of the database into one for a person.
func (s *Store) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var known *berth.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) && !connecting(err) { // which has a deadline of its own
		return err
	}
	if explained := s.dialect.explain(what, err); explained != nil {
		return explained
	}
	return berth.Errorf(berth.CodeInternal, "cannot %s %s: %w", what, s.place, err)
}
