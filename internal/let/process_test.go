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
	for text, want := range map[string]struct {
		code     int
		cause    berth.Cause
		deferred bool
	}{
		"exit 0":         {0, "", false},
		"exit 1":         {1, berth.CauseExitedNonZero, false},
		"exit 42":        {42, berth.CauseExitedNonZero, false},
		"exit 255":       {255, berth.CauseSignalled, false},
		"kill -TERM $$":  {143, berth.CauseSignalled, false},
		"kill -KILL $$":  {137, berth.CauseSignalled, true}, // out of memory, perhaps
		"kill -ABRT $$":  {134, berth.CauseSignalled, false},
		"exec sh -c :":   {0, "", false},
		"exec no-such-x": {127, berth.CauseExitedNonZero, false},
	} {
		_, c := report(t, script(text))
		if c.ExitCode != want.code || c.Deferred != want.deferred || (c.Fault == nil) != (want.cause == "") || c.Fault != nil && c.Fault.Cause != want.cause {
			t.Errorf("%s: %s", text, toJSON(t, c))
		}
	}
}

func TestACommandThatCantBeRunHasTheCodeThatShellsGiveIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, want := range map[string]struct {
		path  string
		code  int
		cause berth.Cause
	}{
		"it isn't there":            {filepath.Join(dir, "none"), 127, berth.CauseCommandNotFound},
		"it isn't in the PATH":      {"no-such-command", 127, berth.CauseCommandNotFound},
		"its interpreter is not":    {write(t, filepath.Join(dir, "odd"), "#!/no/such\n", 0o755), 127, berth.CauseCommandNotFound},
		"it may not be run":         {write(t, filepath.Join(dir, "data"), "#!/bin/sh\n", 0o644), 126, berth.CauseCommandNotExecutable},
		"it is a folder":            {dir, 126, berth.CauseCommandNotExecutable},
		"it is no program":          {write(t, filepath.Join(dir, "text"), "echo", 0o755), 126, berth.CauseArchitectureMismatch},
		"it is below a file":        {"/etc/passwd/x", 126, berth.CauseCommandNotExecutable},
		"the PATH has it without x": {"data", 126, berth.CauseCommandNotExecutable},
	} {
		r, c := report(t, command(want.path), with("PATH="+dir))
		if c.ExitCode != want.code || c.Fault == nil || c.Fault.Cause != want.cause || !strings.Contains(r.stderr.String(), "berthlet: ") {
			t.Errorf("%s: %s, stderr %q", name, toJSON(t, c), r.stderr)
		}
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
