// Package pgtest runs a real PostgreSQL server for tests, from the programs of
// the Debian package postgresql: as an ordinary user, in a directory of its
// own, on the loopback. It ends with the test, or with the process.
package pgtest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx

	"github.com/berth-run/berth/internal/childtest"
)

// Password is that of the server's user, berth: it is hard to overlook in a
// log or an error where it has no place.
const Password = "hunter2-never-shown"

// Server is a PostgreSQL server.
type Server struct {
	dir      string
	programs string
	port     int
	account  *syscall.Credential // nil: our own
	settings []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done <-chan struct{}
	made int // databases so far
}

// shared is the server of all tests of a process.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Main runs a package's tests, and ends the server that they shared; for TestMain.
func Main(m *testing.M) int {
	defer func() {
		if shared.server != nil {
			shared.server.Close()
		}
	}()
	return m.Run()
}

// URL returns the address of a new, empty database on the server that the tests
// of this process share. It is not safe from a loss of power, and quick.
func URL(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = Launch("fsync=off", "full_page_writes=off") })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server.Database(t)
}

// New starts a server of the test's own, with PostgreSQL's settings NAME=VALUE.
func New(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := Launch(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Launch is New without a test: Close ends the server.
func Launch(settings ...string) (*Server, error) {
	programs, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{programs: programs, settings: settings}
	if os.Geteuid() == 0 { // as which PostgreSQL refuses to run
		if s.account, err = accountOf("postgres"); err != nil {
			return nil, err
		}
	}
	if s.dir, err = os.MkdirTemp("", "berth-postgres-"); err != nil {
		return nil, err
	}
	if s.account != nil {
		if err := os.Chown(s.dir, int(s.account.Uid), int(s.account.Gid)); err != nil {
			return nil, err
		}
	}
	if err := s.initialize(); err != nil {
		s.Close()
		return nil, err
	}
	if s.port, err = freePort(); err == nil {
		err = s.Start()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// programs returns the directory of the newest server that is installed.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("there is no PostgreSQL server here: install the Debian package postgresql (make test-unit does)")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

func accountOf(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}, err
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) initialize() error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(Password), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), filepath.Join(s.programs, "initdb"), "--no-sync", "--username=berth", "--auth=scram-sha-256", "--pwfile="+password, "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata="+s.data())
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.account}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Log is what the server told.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text)
}

// Start starts the server, where it was before, and returns once it answers.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + s.dir, "-c", "max_connections=200"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), filepath.Join(s.programs, "postgres"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account}
	done, err := childtest.Start(cmd, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	s.cmd, s.done = cmd, done
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := do(s.URL("berth", Password, "postgres"), "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-done:
			s.cmd = nil
			return fmt.Errorf("the PostgreSQL server ended: %s\n%s", cmd.ProcessState, s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the PostgreSQL server does not answer: %w\n%s", err, s.Log())
		}
	}
}

// Stop ends the server at once, breaking connections off: fast as an operator
// does it (SIGINT), or like a crash (SIGQUIT).
func (s *Server) Stop(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal)
	<-s.done
	s.cmd = nil
}

// Close ends the server and removes all of it.
func (s *Server) Close() {
	s.Stop(syscall.SIGQUIT)
	_ = os.RemoveAll(s.dir)
}

// Database makes an empty database and returns its address.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	s.made++
	name := "test" + strconv.Itoa(s.made)
	s.mu.Unlock()
	s.Do(t, "postgres", "CREATE DATABASE "+name)
	return s.URL("berth", Password, name)
}

// URL is the address of a database for a user.
func (s *Server) URL(name, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(name, password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Do runs statements in a database, as a superuser.
func (s *Server) Do(t testing.TB, database string, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		Do(t, s.URL("berth", Password, database), statement)
	}
}

// Do runs a statement in the database of an address.
func Do(t testing.TB, address, statement string) {
	t.Helper()
	if err := do(address, statement); err != nil {
		t.Fatal(err)
	}
}

func do(address, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	db, err := sql.Open("pgx", address+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// Shared returns the server that URL makes databases on.
func Shared(t testing.TB) *Server {
	t.Helper()
	_ = URL(t)
	return shared.server
}
