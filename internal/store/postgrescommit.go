package store

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

// sendTries is how often a commit is sent that is known not to have been made,
// as its connection broke: after a restart of the database all of the pool have.
const sendTries = 3

// rowsAStatement bounds the arrays that are sent at once.
const rowsAStatement = 2000

const (
	insertTasks = `INSERT INTO tasks (id, key, state, infrastructure, name, owner, live, share, precedence, array_id, array_index, labels, life)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::bigint[], $10::text[], $11::bigint[], $12::jsonb[], $13::bytea[])`
	updateTasks = `UPDATE tasks t SET state = n.state, infrastructure = n.infrastructure, live = n.live, share = n.share, life = n.life
		FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::bytea[]) AS n (id, state, infrastructure, live, share, life) WHERE t.id = n.id`
	insertEvents = `INSERT INTO events (task_id, attempt, type, message, at)
		SELECT task_id, attempt, type, message, at FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[]) WITH ORDINALITY AS n (task_id, attempt, type, message, at, number) ORDER BY number`
)

// commit sends everything at once and waits once: statements of a batch are one
// transaction, and arrays hold the rows. What is too much for that takes a
// transaction of several batches. One whose answer is lost with the connection
// is asked about until it is known whether it was made.
func (p *postgres) commit(ctx context.Context, w writing) error {
	first, more, err := take(w.next)
	if err != nil || first.empty() && w.lease == (berth.Lease{}) && w.array == nil {
		return err
	}
	by := p.writers.take()
	defer p.writers.put(by)
	for tries := 1; ; tries++ {
		by.serial++
		sent := false
		err := p.raw(ctx, func(conn *pgx.Conn) error {
			sent = true
			batch := &pgx.Batch{}
			batch.Queue("SELECT begin_commit($1, $2)", by.name, by.serial)
			for _, l := range append([]berth.Lease{w.lease}, w.beside...) {
				if l != (berth.Lease{}) {
					batch.Queue("SELECT fence($1, $2, $3)", l.Infrastructure, l.Holder, l.Fence)
				}
			}
			if a := w.array; a != nil {
				batch.Queue(number(insertArray), a.id, a.key, a.infrastructure, a.owner, a.body)
			}
			first.queue(batch)
			if !more {
				return conn.SendBatch(ctx, batch).Close()
			}
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return sendAll(ctx, tx, batch, w.next) })
		})
		if err == nil || !sent || !lost(err) {
			return err
		}
		switch made, asked := p.wasMade(ctx, by); {
		case made:
			return nil
		case asked != nil || tries == sendTries || more: // next can't begin again
			return err
		}
	}
}

// sendAll sends a batch and then what else there is, in a transaction.
func sendAll(ctx context.Context, tx pgx.Tx, batch *pgx.Batch, next func() (*berth.Change, error)) error {
	for more := true; ; {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil || !more {
			return err
		}
		var some columns
		var err error
		if some, more, err = take(next); err != nil {
			return err
		}
		batch = &pgx.Batch{}
		some.queue(batch)
	}
}

// raw runs fn on a connection.
func (p *postgres) raw(ctx context.Context, fn func(*pgx.Conn) error) error {
	conn, err := p.pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		stdConn, ok := c.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("%T is no connection of pgx", c)
		}
		return fn(stdConn.Conn())
	})
}

// columns are rows of tasks and events, as arrays.
type columns struct {
	added, changed tasks
	events         events
}

type tasks struct {
	ids, keys, states, infrastructures, names, owners, shares, arrays, labels []string
	lives                                                                     []int16
	precedences, indices                                                      []int64
	bodies                                                                    [][]byte
}

type events struct {
	tasks, types, messages []string
	attempts, times        []int64
}

// take takes changes until there are enough for one statement; more says that
// there may be others.
func take(next func() (*berth.Change, error)) (c columns, more bool, err error) {
	for range rowsAStatement {
		change, err := next()
		if err != nil || change == nil {
			return c, false, err
		}
		if err := c.add(change); err != nil {
			return c, false, err
		}
	}
	return c, true, nil
}

func (c *columns) add(change *berth.Change) error {
	row, err := rowOf(change)
	if err != nil {
		return err
	}
	to := &c.changed
	if change.New {
		to = &c.added
		labels := []byte("{}")
		if l := change.Life.Task.Spec.Labels; len(l) > 0 {
			if labels, err = json.Marshal(l); err != nil {
				return err
			}
		}
		to.keys, to.names, to.owners, to.arrays, to.labels = append(to.keys, row.key), append(to.names, row.name), append(to.owners, row.owner), append(to.arrays, row.array), append(to.labels, string(labels))
		to.precedences, to.indices = append(to.precedences, int64(row.precedence)), append(to.indices, int64(row.index))
	}
	to.ids, to.states, to.infrastructures, to.shares = append(to.ids, row.id), append(to.states, row.state), append(to.infrastructures, row.infrastructure), append(to.shares, row.share)
	to.lives, to.bodies = append(to.lives, int16(row.live)), append(to.bodies, row.life)
	for i := range change.Events {
		e := &change.Events[i]
		c.events.tasks, c.events.types, c.events.messages = append(c.events.tasks, e.TaskID), append(c.events.types, string(e.Type)), append(c.events.messages, storable(e.Message))
		c.events.attempts, c.events.times = append(c.events.attempts, int64(e.Attempt)), append(c.events.times, e.At.UnixNano())
	}
	return nil
}

func (c *columns) empty() bool {
	return len(c.added.ids) == 0 && len(c.changed.ids) == 0 && len(c.events.tasks) == 0
}

// queue adds the statements that store them to a batch.
func (c *columns) queue(batch *pgx.Batch) {
	if a := &c.added; len(a.ids) > 0 {
		batch.Queue(insertTasks, a.ids, a.keys, a.states, a.infrastructures, a.names, a.owners, a.lives, a.shares, a.precedences, a.arrays, a.indices, a.labels, a.bodies)
	}
	if t := &c.changed; len(t.ids) > 0 {
		batch.Queue(updateTasks, t.ids, t.states, t.infrastructures, t.lives, t.shares, t.bodies)
	}
	if e := &c.events; len(e.tasks) > 0 {
		batch.Queue(insertEvents, e.tasks, e.attempts, e.types, e.messages, e.times)
	}
}

// storable is a text as PostgreSQL takes it: what happened is not to be lost for
// a byte that somebody put into a message.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// lost reports whether an error is of a connection that broke, or that the
// server broke off: what was sent may have been done.
func lost(err error) bool {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return strings.HasPrefix(told.Code, "57P") || strings.HasPrefix(told.Code, "08")
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, driver.ErrBadConn) ||
		strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "unexpected EOF")
}

// wasMade finds out whether a writer's last commit was made, and keeps it from
// being made later: a server may still work on what a broken connection sent. It
// asks until there is an answer.
func (p *postgres) wasMade(ctx context.Context, w *writer) (bool, error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		_, err := p.pool.ExecContext(ctx, "SELECT begin_commit(?, ?)", w.name, w.serial)
		var told *pgconn.PgError
		switch {
		case err == nil:
			return false, nil
		case errors.As(err, &told) && told.Code == "BE002":
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// writer numbers commits that are made one after the other.
type writer struct {
	name   string
	serial int64
}

// writers are those that nobody uses at the moment.
type writers struct {
	mu   sync.Mutex
	idle []*writer
}

func (w *writers) take() *writer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.idle); n > 0 {
		last := w.idle[n-1]
		w.idle = w.idle[:n-1]
		return last
	}
	return &writer{name: xid.New().String()}
}

func (w *writers) put(one *writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = append(w.idle, one)
}
