package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// serverProcess is a berth server that a test started, in a directory of its own.
type serverProcess struct {
	dir      string
	env      []string
	cmd      *exec.Cmd
	url      string
	database string // empty: a file of the directory
	listen   string // once it is known: a server that is started again is where it was
	stderr   lockedText
	serving  chan string
}

type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *lockedText) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.WriteString(line + "\n")
}

func (t *lockedText) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (s *serverProcess) ca() string { return filepath.Join(s.dir, ".berth", "ca.pem") }

// berth runs a command line on the server's machine, so to speak.
func (s *serverProcess) berth(args ...string) (string, error) {
	cmd := exec.Command("berth", args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("berth %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

var servingLine = regexp.MustCompile(`berth: serving (https://(\S+));`)

// start starts it, and returns once it serves.
func (s *serverProcess) start() error {
	if s.listen == "" {
		s.listen = "127.0.0.1:0"
	}
	s.cmd = exec.Command("berth", "server", "--listen", s.listen)
	if s.database != "" {
		s.cmd.Args = append(s.cmd.Args, "--database", s.database)
	}
	s.cmd.Dir, s.cmd.Env = s.dir, s.env
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	s.cmd.Stderr = write
	if err := s.cmd.Start(); err != nil {
		return err
	}
	write.Close()
	s.serving = make(chan string, 100)
	go s.follow(read, s.serving)
	return s.awaitServing()
}

// follow keeps what the server says, until it ends.
func (s *serverProcess) follow(r io.ReadCloser, serving chan<- string) {
	defer r.Close()
	defer close(serving)
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		s.stderr.add(scanner.Text())
		if m := servingLine.FindStringSubmatch(scanner.Text()); m != nil {
			serving <- m[1]
		}
	}
}

func (s *serverProcess) awaitServing() error {
	select {
	case url, ok := <-s.serving:
		if !ok {
			return fmt.Errorf("the server ended:\n%s", s.stderr.String())
		}
		s.url, s.listen = url, strings.TrimPrefix(url, "https://")
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("the server does not serve:\n%s", s.stderr.String())
	}
}

// restart lets it put itself in its own place.
func (s *serverProcess) restart() error {
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return s.awaitServing()
}

// kill ends it at once.
func (s *serverProcess) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait()
	s.cmd = nil
	return nil
}

// stop ends it well, within 10 s and with exit code 0.
func (s *serverProcess) stop() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	context.AfterFunc(ctx, func() {
		if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // it is never wrapped
			_ = s.cmd.Process.Kill()
		}
	})
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the server did not end well within 10 s: %w\n%s", err, s.stderr.String())
	}
	s.cmd = nil
	return nil
}

func localUser() string {
	u, err := user.Current()
	if err != nil {
		return "admin"
	}
	return u.Username
}

// startServer gives a script a server, which its environment names; its store is
// in a database, or in a file of its directory.
func startServer(env *testscript.Env, database string) error {
	s := &serverProcess{database: database, dir: filepath.Join(env.WorkDir, ".server"), env: append([]string{}, env.Vars...)}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	env.Defer(func() {
		if err := s.stop(); err != nil {
			env.T().Fatal(err)
		}
	})
	token, err := s.berth("server", "token", "create", localUser(), "--role", "admin")
	if err != nil {
		return err
	}
	env.Values[serverKey{}] = s
	env.Setenv("BERTH_SERVER", s.url)
	env.Setenv("BERTH_TOKEN", token)
	env.Setenv("BERTH_CA_FILE", s.ca())
	return nil
}

type serverKey struct{}

func cut(variable string) (name, value string, found bool) { return strings.Cut(variable, "=") }
