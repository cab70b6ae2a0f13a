package let

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// What is fixed in a container and has to be elsewhere here. Whatever a run
// starts has runVar in its environment, by which it is found again.
const (
	runVar       = "BERTHLET_TEST_RUN"
	killAfterVar = "BERTHLET_TEST_KILL_AFTER"
	packageVar   = "BERTHLET_TEST_PACKAGE"
)

// TestMain lets the test binary be the agent too: it reaps every child of its
// process and takes every signal, so it needs a process to itself.
func TestMain(m *testing.M) {
	if os.Getenv(runVar) == "" {
		os.Exit(m.Run())
	}
	if text := os.Getenv(killAfterVar); text != "" {
		var err error
		if killAfter, err = time.ParseDuration(text); err != nil {
			panic(err)
		}
	}
	if path := os.Getenv(packageVar); path != "" {
		packageFile = path
	}
	os.Exit(Main(os.Args[1:]))
}

// patience is how long a test waits for what should happen at once.
const patience = 10 * time.Second

const nonce = "0123456789abcdef01234567"

// running is an agent that was started.
type running struct {
	t       *testing.T
	cmd     *exec.Cmd
	id      string
	message string // path
	stdout  *output
	stderr  *output
}

// given changes how an agent is started.
type given func(*running, *agent.Order)

func with(pairs ...string) given {
	return func(r *running, _ *agent.Order) { r.cmd.Env = append(r.cmd.Env, pairs...) }
}

func killsAfter(d time.Duration) given { return with(killAfterVar + "=" + d.String()) }

func limit(bytes int) given {
	return func(_ *running, o *agent.Order) { o.Message.Limit = bytes }
}

func writingTo(file *os.File) given {
	return func(r *running, _ *agent.Order) { r.cmd.Stdout = file }
}

func callingBack(url string) given {
	return func(_ *running, o *agent.Order) {
		o.Callback = &agent.Callback{URL: url, Token: "token", Heartbeat: time.Hour}
	}
}

// begin starts an agent with an order.
func begin(t *testing.T, order *agent.Order, how ...given) *running {
	t.Helper()
	dir := t.TempDir()
	r := &running{t: t, cmd: exec.Command(os.Args[0]), id: dir, message: filepath.Join(dir, "message"), stdout: newOutput(), stderr: newOutput()}
	order.Version, order.Task, order.Attempt, order.Pod, order.Nonce = agent.Version, "task", 1, "pod", nonce
	order.Message.Path = r.message
	r.cmd.Dir = dir
	// The race detector waits a second at an end, for others' sake.
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "GORACE=atexit_sleep_ms=0", runVar + "=" + r.id}
	r.cmd.Stdout, r.cmd.Stderr = r.stdout, r.stderr
	for _, h := range how {
		h(r, order)
	}
	vars, err := order.Env()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		r.cmd.Env = append(r.cmd.Env, v.Name+"="+v.Value)
	}
	r.cmd.WaitDelay = patience
	if err := r.cmd.Start(); err != nil {
		if r.cmd.SysProcAttr != nil {
			t.Skipf("there are no namespaces of processes here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if state := r.cmd.ProcessState; state != nil && state.Exited() && !t.Failed() {
			return
		}
		for _, pid := range r.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = r.cmd.Wait()
	})
	return r
}

// end waits for the agent's end. Its report is nil where it left none.
func (r *running) end() (code int, c *agent.Completion) {
	r.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%v; stderr: %s", err, r.stderr)
	}
	if message, err := os.ReadFile(r.message); err == nil {
		c, block, err := agent.DecodeMessage(message)
		if err != nil {
			r.t.Fatalf("%v: %q", err, message)
		}
		if block != nil {
			if c, err = r.fromLog(block); err != nil {
				r.t.Fatal(err)
			}
		}
		return r.cmd.ProcessState.ExitCode(), c
	}
	return r.cmd.ProcessState.ExitCode(), nil
}

func (r *running) fromLog(b *agent.Block) (*agent.Completion, error) {
	collector := agent.NewCollector(nonce)
	for line := range strings.Lines(r.stdout.String()) {
		collector.Add([]byte(line))
	}
	return collector.Completion(b)
}

// report runs an agent that is to leave a report.
func report(t *testing.T, order *agent.Order, how ...given) (*running, *agent.Completion) {
	t.Helper()
	r := begin(t, order, how...)
	code, c := r.end()
	if c == nil {
		t.Fatalf("exit code %d, no report; stderr: %s", code, r.stderr)
	}
	if code != c.ExitCode {
		t.Errorf("it ended with %d and reports %d", code, c.ExitCode)
	}
	return r, c
}

func (r *running) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// log is what the programs wrote to stdout, without frames.
func (r *running) log() string {
	var log strings.Builder
	for line := range strings.Lines(r.stdout.String()) {
		if _, _, frame := agent.ParseFrame(nonce, []byte(line)); frame {
			text := strings.TrimSuffix(log.String(), "\n") // the agent's own
			log.Reset()
			log.WriteString(text)
			continue
		}
		log.WriteString(line)
	}
	return log.String()
}

// processes are those that this run started and that still run.
func (r *running) processes() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && bytes.Contains(data, []byte(runVar+"="+r.id+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// output is what a process wrote so far.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed and replaced at each piece
}

func newOutput() *output { return &output{grown: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.grown)
	o.grown = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// until waits for text and returns the rest of its line.
func (o *output) until(t *testing.T, text string) string {
	t.Helper()
	for over := time.After(patience); ; {
		o.mu.Lock()
		_, after, found := strings.Cut(o.text.String(), text)
		grown := o.grown
		o.mu.Unlock()
		if line, _, whole := strings.Cut(after, "\n"); found && whole {
			return line
		}
		select {
		case <-grown:
		case <-over:
			t.Fatalf("no %q in %q", text, o)
		}
	}
}

// eventually waits for what nothing tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for over := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("never: %s", what)
		}
	}
}

// script is an order of one step.
func script(text string) *agent.Order {
	return &agent.Order{Steps: []berth.Step{{Name: "only", Run: text}}}
}

func command(words ...string) *agent.Order {
	return &agent.Order{Steps: []berth.Step{{Name: "only", Command: words}}}
}

// write makes a file and returns its path.
func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func toJSON(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
