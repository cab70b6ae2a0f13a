package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/berth-run/berth"
)

// maxProblems bounds how many problems of one kind are listed.
const maxProblems = 20

// Check is what was found by looking at all of a store.
type Check struct {
	Place    string   `json:"place"`
	Schema   int      `json:"schema"` // number of its version
	Tasks    int      `json:"tasks"`
	Events   int      `json:"events"`
	Problems []string `json:"problems"`
}

// OK reports whether nothing is wrong.
func (c *Check) OK() bool { return len(c.Problems) == 0 }

func (c *Check) add(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

// CheckFile looks at all of a store in a file, and changes nothing. A server may
// use it meanwhile. The error says why it can't be looked at.
func CheckFile(ctx context.Context, path string) (*Check, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, berth.Errorf(berth.CodeNotFound, "there is no store: %w", err)
	}
	f := &sqliteFile{path: path}
	name := url.URL{Scheme: "file", OmitHost: true, Path: path}
	db, err := sql.Open("sqlite", name.String()+"?mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	s := &Store{dialect: f, place: path, read: &database{DB: db}}
	defer s.Close()
	c := &Check{Place: path, Problems: []string{}}
	if err := s.integrity(ctx, c); err != nil || len(c.Problems) > 0 {
		if damaged(err) {
			c.add("the file is damaged: %v", err)
			return c, nil
		}
		return c, s.explain("read", err)
	}
	known, err := fs.Glob(sqliteMigrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	if err := s.read.QueryRowContext(ctx, "PRAGMA user_version").Scan(&c.Schema); err != nil {
		return nil, s.explain("read", err)
	}
	if c.Schema > len(known) {
		return nil, newer(path, c.Schema, len(known), "to look at it")
	}
	if c.Schema < len(known) {
		return nil, berth.Errorf(berth.CodeConflict, "%s is of an older version of berth (schema %d, this one knows %d), and not damaged; this version changes it when it is used first, and keeps a copy", path, c.Schema, len(known))
	}
	return c, s.explain("read", s.check(ctx, c))
}

// CheckURL looks at all of a store in a PostgreSQL database, and changes nothing.
func CheckURL(ctx context.Context, address string) (*Check, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	p := &postgres{place: place(config), pool: connect(config, 2)}
	s := &Store{dialect: p, place: p.place, read: p.pool}
	defer s.Close()
	c := &Check{Place: p.place, Problems: []string{}}
	known, err := fs.Glob(postgresMigrations, "migrations/postgres/*.sql")
	if err != nil {
		return nil, err
	}
	if c.Schema, err = p.version(ctx); err != nil {
		return nil, s.explain("read", err)
	}
	switch {
	case c.Schema == 0:
		return nil, berth.Errorf(berth.CodeNotFound, "there is no store in %s yet: berth server --database makes one", p.place)
	case c.Schema > len(known):
		return nil, newer(p.place, c.Schema, len(known), "to look at it")
	case c.Schema < len(known):
		return nil, berth.Errorf(berth.CodeConflict, "%s is of an older version of berth (schema %d, this one knows %d); this version changes it when it is used first", p.place, c.Schema, len(known))
	}
	return c, s.explain("read", s.check(ctx, c))
}

// integrity asks SQLite whether the file is whole.
func (s *Store) integrity(ctx context.Context, c *Check) error {
	lines, err := scanTexts(s.read.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", maxProblems)))
	if err != nil {
		return err
	}
	for _, line := range lines {
		if line != "ok" {
			c.add("the file is damaged: %s", line)
		}
	}
	return nil
}

// check looks whether what is stored belongs together.
func (s *Store) check(ctx context.Context, c *Check) error {
	if err := s.checkTasks(ctx, c); err != nil {
		return err
	}
	if err := s.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM events").Scan(&c.Events); err != nil {
		return err
	}
	for _, orphans := range []struct{ what, query string }{
		{"events of a task that isn't there", "SELECT DISTINCT e.task_id FROM events e LEFT JOIN tasks t ON t.id = e.task_id WHERE t.id IS NULL"},
		{"what a task used, and isn't there", "SELECT DISTINCT m.task_id FROM meters m LEFT JOIN tasks t ON t.id = m.task_id WHERE t.id IS NULL"},
		{"samples of a task that isn't there", "SELECT DISTINCT p.task_id FROM samples p LEFT JOIN tasks t ON t.id = p.task_id WHERE t.id IS NULL"},
		{"a task of an array that isn't there", "SELECT t.id FROM tasks t LEFT JOIN arrays a ON a.id = t.array_id WHERE t.array_id <> '' AND a.id IS NULL"},
		{"a task without events", "SELECT t.id FROM tasks t WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.task_id = t.id)"},
	} {
		ids, err := scanTexts(s.read.QueryContext(ctx, orphans.query+" ORDER BY 1 LIMIT ?", maxProblems+1))
		if err != nil {
			return err
		}
		c.list(orphans.what, ids)
	}
	return nil
}

func (c *Check) list(what string, ids []string) {
	for i, id := range ids {
		if i == maxProblems {
			c.add("%s: and others", what)
			return
		}
		c.add("%s: %s", what, id)
	}
}

// checkTasks compares the columns of each task with its life.
func (s *Store) checkTasks(ctx context.Context, c *Check) error {
	rows, err := s.read.QueryContext(ctx, "SELECT id, key, state, infrastructure, name, owner, live, share, precedence, array_id, array_index, life FROM tasks ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	bad := 0
	for rows.Next() {
		var row taskRow
		if err := rows.Scan(&row.id, &row.key, &row.state, &row.infrastructure, &row.name, &row.owner, &row.live, &row.share, &row.precedence, &row.array, &row.index, &row.life); err != nil {
			return err
		}
		c.Tasks++
		what := disagreement(&row)
		if what == "" {
			continue
		}
		if bad++; bad <= maxProblems {
			c.add("task %s: %s", row.id, what)
		}
	}
	if bad > maxProblems {
		c.add("%d other tasks like these", bad-maxProblems)
	}
	return rows.Err()
}

// disagreement says what is wrong with a row; empty where nothing is.
func disagreement(row *taskRow) string {
	life, err := decode(row.life)
	if err != nil {
		return "its life can't be read: " + err.Error()
	}
	want, err := rowOf(&berth.Change{Life: life})
	if err != nil {
		return "its life can't be stored again: " + err.Error()
	}
	for _, column := range []struct {
		name        string
		stored, own any
	}{
		{"id", row.id, want.id}, {"key", row.key, want.key}, {"state", row.state, want.state}, {"infrastructure", row.infrastructure, want.infrastructure},
		{"name", row.name, want.name}, {"owner", row.owner, want.owner}, {"live", row.live, want.live}, {"share", row.share, want.share},
		{"precedence", row.precedence, want.precedence}, {"array_id", row.array, want.array}, {"array_index", row.index, want.index},
	} {
		if column.stored != column.own {
			return fmt.Sprintf("its column %s says %v, and its life %v", column.name, column.stored, column.own)
		}
	}
	return ""
}
