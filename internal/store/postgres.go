package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
)

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

const (
	postgresConnections = 16               // a server's, beside the one of its leases
	postgresSilence     = 20 * time.Second // after which a connection without an answer is given up
	migrationLock       = 0x6265727468     // of one server that migrates: "berth"
)

// postgres is a store in a PostgreSQL database.
type postgres struct {
	place   string
	pool    *database
	leases  *database // one connection of its own: leases are renewed however busy the others are
	writers writers
}

// OpenURL opens the store in a PostgreSQL database, postgres://USER@HOST/NAME,
// and makes its tables where there are none. What the address doesn't say, the
// password above all, is found as libpq does: in PGPASSWORD, ~/.pgpass and so on.
// Neither errors nor logs show a password. CodeConflict for a database that a
// newer version wrote.
func OpenURL(ctx context.Context, address string) (*Store, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	p := &postgres{place: place(config)}
	p.pool = connect(config, postgresConnections)
	p.leases = connect(config, 1)
	s := &Store{dialect: p, place: p.place, read: p.pool, write: p.pool}
	return s.opened(ctx, p.migrate(ctx))
}

// parse reads an address. Its text is in no error: it may hold a password.
func parse(address string) (*pgx.ConnConfig, error) {
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return nil, berth.Errorf(berth.CodeInvalid, "the address of a database begins with postgres://, as in postgres://USER@HOST/NAME")
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "the address of the database can't be read (it isn't shown, since it may hold a password); it is postgres://USER@HOST[:PORT]/NAME[?sslmode=verify-full&...], with %%XX for special characters, and files that it names exist")
	}
	config.RuntimeParams["application_name"] = "berth"
	// fence and begin_commit wait for whoever holds their rows, and see what came of it.
	config.RuntimeParams["default_transaction_isolation"] = "read committed"
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		// A database whose machine is gone without a word is not waited for.
		Control: func(network, _ string, raw syscall.RawConn) error {
			if strings.HasPrefix(network, "tcp") {
				return raw.Control(func(fd uintptr) {
					_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(postgresSilence.Milliseconds()))
				})
			}
			return nil
		}}
	config.DialFunc = dialer.DialContext
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	return config, nil
}

// place is where a database is, for people: without a password.
func place(c *pgx.ConnConfig) string {
	host := c.Host
	if !strings.HasPrefix(host, "/") {
		host = net.JoinHostPort(host, strconv.Itoa(int(c.Port)))
	}
	return fmt.Sprintf("the database %s on %s", c.Database, host)
}

func connect(config *pgx.ConnConfig, connections int) *database {
	db := sql.OpenDB(connector{stdlib.GetConnector(*config)})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &database{DB: db, numbered: true}
}

// connector makes connections, and tries once more where time ran out: it may
// have while this process or its machine was stopped.
type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return c.Connector.Connect(ctx)
	}
	return conn, err
}

// connecting reports whether an error is of a connection that was not made.
func connecting(err error) bool {
	var failed *pgconn.ConnectError
	return errors.As(err, &failed)
}

func (p *postgres) migrate(ctx context.Context) error {
	sources, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		return err
	}
	files, err := fs.Glob(sources, "*.sql")
	if err != nil {
		return err
	}
	if done, err := p.migrated(ctx, len(files)); done || err != nil {
		return err
	}
	// Servers that start together on a new database wait for the first of them.
	conn, err := p.leases.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock) //nolint:errcheck // the end of the connection lets go of it
	if done, err := p.migrated(ctx, len(files)); done || err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, p.pool.DB, sources)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return err
	}
	_, err = p.pool.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", strconv.Itoa(len(files)))
	return err
}

// migrated reports whether the schema is the one of this version.
func (p *postgres) migrated(ctx context.Context, known int) (bool, error) {
	version, err := p.version(ctx)
	if err == nil && version > known {
		err = newer(p.place, version, known, "or another --database")
	}
	return version == known, err
}

// version is the number of the schema; 0 where there is none yet.
func (p *postgres) version(ctx context.Context) (int, error) {
	var text string
	err := p.pool.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'schema'").Scan(&text)
	var told *pgconn.PgError
	if errors.Is(err, sql.ErrNoRows) || errors.As(err, &told) && told.Code == "42P01" { // no such table
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func (p *postgres) label(key, value string) (condition string, args []any) {
	label, _ := json.Marshal(map[string]string{key: value}) // never fails
	return "labels @> CAST(? AS jsonb)", []any{string(label)}
}

func (p *postgres) close() {
	if p.leases != nil {
		p.leases.Close()
	}
}

// explain turns an error of PostgreSQL, or of the way to it, into one for a
// person. What pgx tells of a failed connection has no password in it.
func (p *postgres) explain(what string, err error) error {
	var told *pgconn.PgError
	if !errors.As(err, &told) {
		var network net.Error
		if connecting(err) || errors.As(err, &network) || lost(err) {
			return berth.Errorf(berth.CodeUnavailable, "cannot %s %s: it can't be reached; is its address right, and does it run? what is under way goes on when it answers: %w", what, p.place, err)
		}
		return nil
	}
	because := func(code berth.ErrorCode, why string) error {
		return berth.Errorf(code, "cannot %s %s: %s: %w", what, p.place, why, err)
	}
	switch {
	case told.Code == "BE001":
		return berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrFenced)
	case told.Code == "28P01" || told.Code == "28000":
		return because(berth.CodeUnauthorized, "it refuses the login; look at the user and the password (in the address as ${env:NAME} or ${file:PATH}, in PGPASSWORD or ~/.pgpass), and at its pg_hba.conf")
	case told.Code == "3D000":
		return because(berth.CodeNotFound, "there is no such database; its administrator makes it with createdb")
	case told.Code == "42501":
		return because(berth.CodeForbidden, "the user lacks rights; its administrator grants them with GRANT CREATE, USAGE ON SCHEMA public TO the user, who is to own the tables")
	case told.Code == "25006":
		return because(berth.CodeForbidden, "it takes no writes (a standby, or set to read only); name the primary")
	case told.Code == "53100":
		return because(berth.CodeExhausted, "its disk is full; free some space, nothing was lost")
	case told.Code == "53300":
		return because(berth.CodeUnavailable, fmt.Sprintf("it has no connection left; a server takes up to %d (max_connections)", postgresConnections+1))
	case strings.HasPrefix(told.Code, "53"):
		return because(berth.CodeExhausted, "it lacks memory or disk")
	case told.Code == "23505" && told.ConstraintName == "tasks_key_key":
		return because(berth.CodeConflict, "a task was submitted with this key before")
	case told.Code == "22021" || told.Code == "22P05":
		return because(berth.CodeInvalid, "PostgreSQL keeps no text with a zero byte")
	case told.Code == "XX001" || told.Code == "XX002":
		return because(berth.CodeInternal, "its files are damaged; restore it from a copy")
	case lost(err):
		return because(berth.CodeUnavailable, "it ends or begins; what is under way goes on when it answers")
	}
	return nil
}
