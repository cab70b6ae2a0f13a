package store

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
)

// database is a pool of connections. Queries of this package mark their
// arguments with ?, whatever the database's own way is.
type database struct {
	*sql.DB
	numbered bool // arguments are $1, $2 ...
}

func (d *database) query(text string) string {
	if !d.numbered || !strings.Contains(text, "?") {
		return text
	}
	return number(text)
}

// number puts $1, $2 ... in place of the question marks that are not in quotes.
func number(text string) string {
	var b strings.Builder
	n, quoted := 0, false
	for _, r := range text {
		switch {
		case r == '\'':
			quoted = !quoted
		case r == '?' && !quoted:
			n++
			b.WriteString("$" + strconv.Itoa(n))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (d *database) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.DB.QueryContext(ctx, d.query(query), args...)
}

func (d *database) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return d.DB.QueryRowContext(ctx, d.query(query), args...)
}

func (d *database) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return d.DB.ExecContext(ctx, d.query(query), args...)
}

func (d *database) BeginTx(ctx context.Context, options *sql.TxOptions) (*transaction, error) {
	tx, err := d.DB.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	return &transaction{tx, d}, nil
}

// transaction is a transaction on a database.
type transaction struct {
	*sql.Tx
	on *database
}

func (t *transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.Tx.ExecContext(ctx, t.on.query(query), args...)
}

func (t *transaction) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.Tx.QueryContext(ctx, t.on.query(query), args...)
}

func (t *transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.Tx.QueryRowContext(ctx, t.on.query(query), args...)
}
