package let

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

func marking(_ *running, o *agent.Order) { o.Streams = true }

// marked is the log as the control plane stores it, without times: '>' before
// lines of stdout, '^' before those of stderr, '!' before the agent's marks.
func (r *running) marked() string {
	r.t.Helper()
	const stamp = "2026-01-02T03:04:05Z"
	var timed strings.Builder
	for line := range strings.Lines(r.stdout.String()) {
		timed.WriteString(stamp + " " + line)
	}
	got, err := io.ReadAll(agent.Filter(io.NopCloser(strings.NewReader(timed.String())), nonce, false))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.ReplaceAll(string(got), stamp, "")
}

func TestStdoutAndStderrOfStepsAreToldApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxPending+1000)
	for name, tt := range map[string]struct{ run, want string }{
		"one after the other":        {"echo a; sleep 0.2; echo b >&2; sleep 0.2; echo c", ">a\n^b\n>c\n"},
		"no newline at the end":      {"echo a >&2; sleep 0.2; printf b", "^a\n>b\n"},
		"a line in pieces":           {"printf a; sleep 0.2; echo e >&2; sleep 0.2; echo b", "^e\n>ab\n"},
		"an empty line":              {"echo >&2; sleep 0.2; echo; sleep 0.2; echo a", "^\n>\n>a\n"},
		"a line that is very long":   {"printf '" + strings.Repeat("x", 1000) + "%s\\n' '" + long + "' >&2", "^" + strings.Repeat("x", 1000) + long + "\n"},
		"what is left behind":        {"(sleep 0.3; echo late >&2) & echo a", ">a\n"},
		"control characters and all": {"printf '\\033[31mred\\0\\r\\n' >&2", "^\x1b[31mred\x00\r\n"},
	} {
		r, c := report(t, steps(berth.Step{Name: "s", Run: tt.run}), marking)
		if want := "!streams\n!step 1\n" + tt.want + "!step 0\n"; c.ExitCode != 0 || r.marked() != want {
			t.Errorf("%s: exit code %d, %.300q, want %.300q", name, c.ExitCode, r.marked(), want)
		}
		if r.stderr.String() != "" {
			t.Errorf("%s: something went past the log: %q", name, r.stderr)
		}
	}
}

// What a step wrote comes before the mark of the next, and what it left running
// can still write.
func TestOutputIsOfTheStepThatWroteIt(t *testing.T) {
	t.Parallel()
	var of []berth.Step
	want := "!streams\n"
	for i := range 20 {
		of = append(of, berth.Step{Name: fmt.Sprint("s", i), Run: fmt.Sprintf("echo out %d; echo err %d >&2", i, i)})
		want += fmt.Sprintf("!step %d\n>out %d\n^err %d\n", i+1, i, i)
	}
	r, _ := report(t, steps(of...), marking)
	got := r.marked()
	for i := range 20 { // the two streams of a moment may be in either order
		got = strings.ReplaceAll(got, fmt.Sprintf("^err %d\n>out %d\n", i, i), fmt.Sprintf(">out %d\n^err %d\n", i, i))
	}
	if got != want+"!step 0\n" {
		t.Errorf("%q", got)
	}
	r, c := report(t, steps(berth.Step{Name: "a", Run: "(read x <fifo; echo served) & echo begun"}, berth.Step{Name: "b", Run: "echo now >fifo; sleep 0.3"}), marking, func(r *running, _ *agent.Order) {
		if err := syscall.Mkfifo(r.cmd.Dir+"/fifo", 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if c.ExitCode != 0 || !strings.Contains(r.marked(), "!step 2\n>served\n") {
		t.Errorf("%q", r.marked())
	}
}

func TestStderrOfAFunctionIsToldApartAndHasNoSecrets(t *testing.T) {
	t.Parallel()
	order, package_ := secretCall(t, "string", "env:S", `echo out $PASSWORD; sleep 0.2; echo "err $PASSWORD" >&2; exit 3`)
	r, _ := report(t, order, package_, with("S="+password), marking)
	if got := r.marked(); !strings.Contains(got, "^err "+redacted) || !strings.Contains(got, ">out "+redacted) || strings.Contains(got, "staple") {
		t.Errorf("%q", got)
	}
}
