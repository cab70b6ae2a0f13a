//go:build e2e

package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

// site is an infra.yml and a data directory of their own: what one user has.
type site struct {
	t      *testing.T
	dir    string
	engine *dockerd
	env    []string // beside PATH and HOME
}

func newSite(t *testing.T, engine *dockerd) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), engine: engine}
	s.write("infra.yml", "infrastructures:\n  here:\n    kind: docker\n    address: "+engine.host+"\n    grace: {pull_grace: 3s, start_timeout: 8s}\n")
	return s
}

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// command is a berth command line in the site's directory.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(berthBinary, args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}, s.env...)
	return cmd
}

func (s *site) berth(args ...string) result {
	s.t.Helper()
	cmd := s.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(began)}
}

// must runs a command that has to succeed and returns its output.
func (s *site) must(args ...string) string {
	s.t.Helper()
	r := s.berth(args...)
	if r.code != 0 {
		s.t.Fatalf("berth %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// detach submits a task and returns its id.
func (s *site) detach(args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must(append([]string{"run", "--detach"}, args...)...))
}

func (s *site) task(id string) berth.Task {
	s.t.Helper()
	var task berth.Task
	if err := json.Unmarshal([]byte(s.must("task", "get", id, "-o", "json")), &task); err != nil {
		s.t.Fatal(err)
	}
	return task
}

func (s *site) tasks() []berth.Task {
	s.t.Helper()
	var tasks []berth.Task
	if err := json.Unmarshal([]byte(s.must("task", "list", "-o", "json")), &tasks); err != nil {
		s.t.Fatal(err)
	}
	return tasks
}

// events names what happened to a task.
func (s *site) events(id string) []berth.EventType {
	s.t.Helper()
	var events []berth.Event
	if err := json.Unmarshal([]byte(s.must("task", "events", id, "-o", "json")), &events); err != nil {
		s.t.Fatal(err)
	}
	var types []berth.EventType
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

// containers are those of Berth's that the Engine has, by name.
func (s *site) containers() []string {
	s.t.Helper()
	list, err := s.engine.api.ContainerList(s.t.Context(), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", berth.LabelManagedBy+"="+berth.LabelManagedByValue)})
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, c := range list.Items {
		names = append(names, c.Names...)
	}
	return names
}

// clean waits until the Engine has no container of Berth's any more.
func (s *site) clean() {
	s.t.Helper()
	waitFor(s.t, "no container is left", 30*time.Second, func() bool { s.berth("task", "list"); return len(s.containers()) == 0 })
}

// waitFor waits until something holds; it is asked often, as nothing tells.
func waitFor(t *testing.T, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// lockedBuffer is written by a process while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// printed is all that a task printed, and what Berth says of its log.
func (s *site) printed(id string) string {
	s.t.Helper()
	r := s.berth("task", "logs", id)
	if r.code != 0 {
		s.t.Fatalf("berth task logs: exit %d\n%s", r.code, r.stderr)
	}
	return r.stdout + r.stderr
}
