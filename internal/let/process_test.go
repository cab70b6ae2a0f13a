package let

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

func TestTheExitCodeOfAProgramIsKept(t *testing.T) {
	t.Parallel()
	var order agent.Order
	var want []int
	for text, code := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 42": 42, "exit 255": 255, "exec sh -c :": 0, "exec no-such-command": 127,
		"kill -TERM $$": 143, "kill -KILL $$": 137, "kill -ABRT $$": 134,
	} {
		order.Steps, want = append(order.Steps, ignoring(step(text, text))), append(want, code)
	}
	order.Steps, want = append(order.Steps, step("last", "exit 99")), append(want, 99)
	_, c := report(t, &order)
	for i, s := range c.Steps {
		if s.ExitCode == nil || *s.ExitCode != want[i] {
			t.Errorf("%s: %s, want %d", s.Name, toJSON(t, s), want[i])
		}
	}
	if c.ExitCode != 99 || c.Deferred {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestWhyAProgramWasKilledIsForTheClusterToSay(t *testing.T) {
	t.Parallel()
	if _, c := report(t, script("kill -KILL $$")); c.ExitCode != 137 || !c.Deferred || c.Fault.Cause != berth.CauseSignalled {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestACommandThatCantBeRunHasTheCodeThatShellsGiveIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var order agent.Order
	type end struct {
		path string
		code int
		why  string
	}
	ends := []end{
		{filepath.Join(dir, "none"), 127, "is not in the image"},
		{"no-such-command", 127, "is not in the image"},
		{write(t, filepath.Join(dir, "odd"), "#!/no/such\n", 0o755), 127, "the interpreter that its first line names"},
		{write(t, filepath.Join(dir, "data"), "#!/bin/sh\n", 0o644), 126, "is not executable: chmod +x it"},
		{dir, 126, "is a folder"},
		{write(t, filepath.Join(dir, "text"), "echo", 0o755), 126, "a script without a first line"},
		{"/etc/passwd/x", 126, "not a directory"},
		{"data", 126, "is not executable: chmod +x it"}, // of the PATH
	}
	for _, e := range ends {
		order.Steps = append(order.Steps, berth.Step{Name: "a", Command: []string{e.path}, IgnoreFailure: true})
	}
	r, c := report(t, &order, with("PATH="+dir))
	for i, e := range ends {
		if s := c.Steps[i]; *s.ExitCode != e.code || !strings.Contains(s.Reason, e.why) || !strings.Contains(r.stderr.String(), "berthlet: "+s.Reason) {
			t.Errorf("%s: %s", e.path, toJSON(t, s))
		}
	}
}

func TestACommandThatIsNotThereIsSaidToBe(t *testing.T) {
	t.Parallel()
	if _, c := report(t, command("no-such-command")); c.ExitCode != 127 || c.Fault == nil || c.Fault.Cause != berth.CauseCommandNotFound {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestACommandIsLookedUpInThePathOfItsStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "hello"), "#!/bin/sh\necho from the step\n", 0o755)
	order := command("hello")
	order.Steps[0].Env = []berth.EnvVar{{Name: "PATH", Value: "/nowhere:" + dir}}
	if r, c := report(t, order); c.ExitCode != 0 || r.log() != "from the step\n" {
		t.Errorf("%s, log %q", toJSON(t, c), r.log())
	}
}

// A variable that is there twice is read as the first by getenv and as the
// last by shells.
func TestAProgramHasEachVariableOnce(t *testing.T) {
	t.Parallel()
	order := command("env")
	order.Steps[0].Env = []berth.EnvVar{{Name: "LEVEL", Value: "step"}, {Name: "LEVEL", Value: "last"}}
	r, _ := report(t, order, with("LEVEL=image", "OTHER=kept"))
	var got []string
	for line := range strings.Lines(r.log()) {
		if strings.HasPrefix(line, "LEVEL=") || strings.HasPrefix(line, "OTHER=") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if len(got) != 2 || !strings.Contains(r.log(), "LEVEL=last\n") || !strings.Contains(r.log(), "OTHER=kept\n") {
		t.Errorf("got %q", got)
	}
}

func TestASignalReachesTheWholeProcessGroup(t *testing.T) {
	t.Parallel()
	r := begin(t, script(`
		trap 'echo parent had it' USR1
		sh -c 'trap "echo child had it; exit" USR1; echo ready; while :; do sleep 0.01; done' &
		while ! wait $!; do :; done`))
	r.stdout.until(t, "ready")
	r.signal(syscall.SIGUSR1)
	r.stdout.until(t, "child had it")
	r.stdout.until(t, "parent had it")
	r.signal(syscall.SIGKILL)
}

func TestAProgramMayEndByItselfOnceToldTo(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT} {
		r := begin(t, script("trap 'echo cleaned up; exit 7' "+name+"; echo ready; while :; do sleep 0.01; done"))
		r.stdout.until(t, "ready")
		r.signal(s)
		code, c := r.end()
		if code != 7 || c == nil || !c.Deferred || !strings.Contains(r.log(), "cleaned up") {
			t.Errorf("%s: %d, %s, %q", name, code, toJSON(t, c), r.log())
		}
	}
}

func TestAProgramThatIgnoresSIGTERMIsKilled(t *testing.T) {
	t.Parallel()
	r := begin(t, script("trap '' TERM; echo ready; sleep 60"), killsAfter(20*time.Millisecond))
	r.stdout.until(t, "ready")
	start := time.Now()
	r.signal(syscall.SIGTERM)
	if code, c := r.end(); code != 137 || c == nil || !c.Deferred || time.Since(start) > patience/2 {
		t.Errorf("%d, %s after %s", code, toJSON(t, c), time.Since(start))
	}
	eventually(t, "all of it has ended", func() bool { return len(r.processes()) == 0 })
}

// stat is a process's state and parent; a zombie is of state Z.
func stat(pid int) (state string, parent int, there bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	parent, _ = strconv.Atoi(fields[1])
	return fields[0], parent, true
}

func TestOrphansOfAProgramAreAdoptedAndReaped(t *testing.T) {
	t.Parallel()
	fifos := t.TempDir()
	for _, name := range []string{"orphan", "step"} {
		if err := syscall.Mkfifo(filepath.Join(fifos, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := begin(t, script("cd "+fifos+"; sh -c 'sh -c \"read x <orphan; exit 3\" & echo orphan $!'; read x <step"))
	orphan, err := strconv.Atoi(strings.TrimSpace(r.stdout.until(t, "orphan")))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent is the orphan's parent", func() bool {
		_, parent, there := stat(orphan)
		return there && parent == r.cmd.Process.Pid
	})
	write(t, filepath.Join(fifos, "orphan"), "\n", 0o600)
	eventually(t, "the orphan is gone and no zombie", func() bool { _, _, there := stat(orphan); return !there })
	write(t, filepath.Join(fifos, "step"), "\n", 0o600)
	if code, c := r.end(); code != 0 { // not the orphan's 3
		t.Errorf("%d, %s", code, toJSON(t, c))
	}
}

// asPID1 gives the agent a namespace of processes, as containers do.
func asPID1(r *running, _ *agent.Order) {
	id := []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	group := []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWUSER, UidMappings: id, GidMappings: group}
}

func TestAsPID1TheAgentHeedsSignalsAndNothingOutlivesIt(t *testing.T) {
	t.Parallel()
	r := begin(t, script("setsid sh -c 'trap \"\" TERM; echo away; sleep 60' & echo agent $PPID; wait"), asPID1)
	if pid := r.stdout.until(t, "agent "); pid != "1" {
		t.Errorf("the agent is %s", pid)
	}
	r.stdout.until(t, "away")
	r.signal(syscall.SIGTERM)
	if code, c := r.end(); code != 143 || c == nil || !c.Deferred {
		t.Errorf("%d, %s, %s", code, toJSON(t, c), r.stderr)
	}
	eventually(t, "all of it has ended", func() bool { return len(r.processes()) == 0 })
}

func TestAClosedStdoutEndsNothing(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer writer.Close()
	proof := filepath.Join(t.TempDir(), "proof")
	_, c := report(t, &agent.Order{Steps: []berth.Step{{Name: "a", Run: ":"}, {Name: "b", Run: "echo done >" + proof}}}, writingTo(writer))
	if text, err := os.ReadFile(proof); c.ExitCode != 0 || string(text) != "done\n" {
		t.Errorf("%s, %q, %v", toJSON(t, c), text, err)
	}
}

func TestBinaryOutputComesThroughAsItIs(t *testing.T) {
	t.Parallel()
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.N(256))
	}
	copy(data, "\x00\xff\x1eberth \r\n")
	file := write(t, filepath.Join(t.TempDir(), "data"), string(data), 0o600)
	if r, c := report(t, command("cat", file)); c.ExitCode != 0 || !strings.Contains(r.stdout.String(), string(data)) {
		t.Errorf("%s, %d bytes", toJSON(t, c), len(r.stdout.String()))
	}
}

func TestAProgramHasAnEmptyStdin(t *testing.T) {
	t.Parallel()
	if r, c := report(t, command("cat")); c.ExitCode != 0 || r.log() != "" {
		t.Errorf("%s, %q", toJSON(t, c), r.log())
	}
}
