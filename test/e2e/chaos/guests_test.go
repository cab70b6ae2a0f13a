//go:build e2e

package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

// A host is killed while fifty other commands on its data directory wait, and
// so is the one that takes its place. Every wait ends, with the code of what it
// waited for, and nothing ran twice.
func TestAHostIsKilledWithFiftyGuestsWaiting(t *testing.T) {
	const guests = 50
	l := newLedger(t)
	p := newPlane(t, newNamespace(t), "", "")
	program := func(token string, code int) []string {
		return append([]string{busybox, "--"}, l.program(token, fmt.Sprintf("%s; echo %s; exit %d", l.gate(), token, code))...)
	}
	start := func(args ...string) *guest {
		g := &guest{cmd: p.command(args...), done: make(chan struct{})}
		g.cmd.Stdout, g.cmd.Stderr = &g.stdout, &g.stderr
		if err := g.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { defer close(g.done); _ = g.cmd.Wait() }()
		t.Cleanup(func() { _ = g.cmd.Process.Kill(); <-g.done })
		return g
	}
	host := start(append([]string{"run"}, program("host", 0)...)...)
	eventually(t, "the host's task runs", time.Minute, func() bool { return len(l.of("host")) == 1 })
	service, err := client.Dial("unix://"+p.data, "")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	hosting := func() int {
		info, err := service.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.PID
	}
	if pid := hosting(); pid != host.cmd.Process.Pid {
		t.Fatalf("process %d is the host, and not the first, %d", pid, host.cmd.Process.Pid)
	}

	// Every other one runs a task; each of those is waited for by the next one.
	var all []*guest
	for i := 0; i < guests; i += 2 {
		token := fmt.Sprintf("guest-%d", i)
		runs := start(append([]string{"run", "--name", token}, program(token, i)...)...)
		runs.token, runs.code = token, i
		all = append(all, runs)
	}
	ids := map[string]string{}
	eventually(t, "the guests' tasks run", 2*time.Minute, func() bool {
		page, err := service.Tasks(t.Context(), berth.TaskQuery{States: []berth.TaskState{berth.StateRunning}, Limit: 1000})
		for _, task := range page.Tasks {
			if task.Name != nil {
				ids[*task.Name] = task.ID
			}
		}
		return err == nil && len(ids) == guests/2
	})
	for i := 0; i < guests; i += 2 {
		waits := start("task", "wait", ids[fmt.Sprintf("guest-%d", i)])
		waits.code = i
		all = append(all, waits)
	}
	eventually(t, "the guests are connected", time.Minute, func() bool { return connections(t, p.data) >= guests })

	for _, g := range append([]*guest{host}, all...) {
		select {
		case <-g.done:
			t.Fatalf("%v ended too early: %s", g.cmd.Args[1:3], g.stderr.String())
		default:
		}
	}
	_ = host.cmd.Process.Signal(syscall.SIGKILL)
	<-host.done
	second := hosting()
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatalf("killing the second host, %d: %v", second, err)
	}
	eventually(t, "a third host", 30*time.Second, func() bool {
		pid := hosting()
		return pid != second && pid != host.cmd.Process.Pid
	})
	l.openGate()
	for _, g := range all {
		select {
		case <-g.done:
		case <-time.After(2 * time.Minute):
			t.Fatalf("%v does not end: %s", g.cmd.Args[1:4], g.stderr.String())
		}
		if g.cmd.Process.Pid == second {
			continue
		}
		want := ""
		if g.token != "" {
			want = g.token + "\n"
		}
		if code := g.cmd.ProcessState.ExitCode(); code != g.code || g.stdout.String() != want {
			t.Errorf("%v ended with %d and printed %q; it should have been %d, %q\n%s", g.cmd.Args[1:3], code, g.stdout.String(), g.code, want, g.stderr.String())
		}
	}
	for _, token := range l.tokens() {
		if runs := l.of(token); len(runs) != 1 {
			t.Errorf("%s ran so often: %+v", token, runs)
		}
	}
	if _, code := p.run("task", "list"); code != 0 {
		t.Error("the data directory can't be used any more")
	}
}

// guest is a command that waits.
type guest struct {
	cmd            *exec.Cmd
	token          string // of the task that it runs
	code           int    // that it has to end with
	stdout, stderr bytes.Buffer
	done           chan struct{}
}

// connections are those to a data directory's socket.
func connections(t *testing.T, data string) int {
	t.Helper()
	out, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		if strings.HasSuffix(strings.TrimSpace(line), filepath.Join(data, "berth.sock")) {
			n++
		}
	}
	return n
}
