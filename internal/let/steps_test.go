package let

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// step makes one that runs a script.
func step(name, run string) berth.Step { return berth.Step{Name: name, Run: run} }

func ignoring(s berth.Step) berth.Step {
	s.IgnoreFailure = true
	return s
}

func within(timeout time.Duration, s berth.Step) berth.Step {
	s.Timeout = timeout
	return s
}

func steps(of ...berth.Step) *agent.Order { return &agent.Order{Steps: of} }

// states are the steps as "name state" or "name state ignored".
func states(c *agent.Completion) (of []string) {
	for _, s := range c.Steps {
		text := s.Name + " " + string(s.State)
		if s.Ignored {
			text += " ignored"
		}
		of = append(of, text)
	}
	return of
}

func TestStepsRunOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r, c := report(t, steps(step("a", "echo 1; sleep 0.02; echo 2"), step("b", "echo 3"), step("c", "echo 4")))
	if r.log() != "1\n2\n3\n4\n" || c.ExitCode != 0 || c.Fault != nil {
		t.Errorf("%q, %s", r.log(), toJSON(t, c))
	}
	var last time.Time
	for _, s := range c.Steps {
		if s.State != berth.StepSucceeded || s.ExitCode == nil || *s.ExitCode != 0 || s.StartedAt.Before(last) || s.FinishedAt.Before(*s.StartedAt) {
			t.Errorf("%s after %s", toJSON(t, s), last)
		}
		last = *s.FinishedAt
	}
}

func TestTheFirstFailureThatIsNotIgnoredEndsTheTask(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps []berth.Step
		code  int
		want  []string
	}{
		"a later success can't hide it":          {[]berth.Step{step("a", "exit 3"), step("b", "echo ran")}, 3, []string{"a failed", "b skipped"}},
		"the last one's counts":                  {[]berth.Step{step("a", ":"), step("b", "exit 4")}, 4, []string{"a succeeded", "b failed"}},
		"an ignored one is none":                 {[]berth.Step{ignoring(step("a", "exit 3")), step("b", ":")}, 0, []string{"a failed ignored", "b succeeded"}},
		"an ignored one at the end is none":      {[]berth.Step{step("a", ":"), ignoring(step("b", "exit 3"))}, 0, []string{"a succeeded", "b failed ignored"}},
		"one after an ignored one counts":        {[]berth.Step{ignoring(step("a", "exit 3")), step("b", "exit 4"), step("c", "echo ran")}, 4, []string{"a failed ignored", "b failed", "c skipped"}},
		"one that can be ignored and succeeds":   {[]berth.Step{ignoring(step("a", ":")), step("b", "exit 4")}, 4, []string{"a succeeded", "b failed"}},
		"what comes later is skipped, ignored":   {[]berth.Step{step("a", "exit 3"), ignoring(step("b", "echo ran"))}, 3, []string{"a failed", "b skipped"}},
		"what can't be run is a failure":         {[]berth.Step{{Name: "a", Command: []string{"no-such-command"}}, step("b", "echo ran")}, 127, []string{"a failed", "b skipped"}},
		"what can't be run is ignored too":       {[]berth.Step{{Name: "a", Command: []string{"no-such-command"}, IgnoreFailure: true}, step("b", ":")}, 0, []string{"a failed ignored", "b succeeded"}},
		"a script ends at its first failure":     {[]berth.Step{step("a", "false\necho ran")}, 1, []string{"a failed"}},
		"one that was killed and is ignored too": {[]berth.Step{ignoring(step("a", "kill -KILL $$")), step("b", ":")}, 0, []string{"a failed ignored", "b succeeded"}},
	} {
		r, c := report(t, steps(tt.steps...))
		if got := states(c); c.ExitCode != tt.code || !slices.Equal(got, tt.want) || strings.Contains(r.log(), "ran") {
			t.Errorf("%s: %d, %q, log %q", name, c.ExitCode, got, r.log())
		}
		if (c.Fault != nil) != (tt.code != 0) || c.Deferred {
			t.Errorf("%s: %s", name, toJSON(t, c))
		}
	}
}

func TestAFailureSaysWhichStepItWasAndWhatToDo(t *testing.T) {
	t.Parallel()
	_, c := report(t, steps(step("prepare", ":"), step("train", "exit 3"), step("store", ":")))
	want := agent.Fault{Cause: berth.CauseExitedNonZero, Summary: "Step train (2 of 3) failed with exit code 3.", Remedy: "look at what it wrote last: berth task logs --step train {task}"}
	if c.Fault == nil || toJSON(t, c.Fault) != toJSON(t, want) {
		t.Errorf("got %s", toJSON(t, c.Fault))
	}
	_, c = report(t, steps(step("train", "kill -TERM $$")))
	if c.Fault == nil || c.Fault.Summary != "Step train (1 of 1) failed: it was ended by signal 15, exit code 143." {
		t.Errorf("got %s", toJSON(t, c.Fault))
	}
}

func TestASkippedStepHasNeitherTimesNorACode(t *testing.T) {
	t.Parallel()
	_, c := report(t, steps(step("a", "exit 1"), step("b", ":")))
	if b := c.Steps[1]; b.StartedAt != nil || b.FinishedAt != nil || b.ExitCode != nil {
		t.Errorf("got %s", toJSON(t, b))
	}
}

func TestAStepIsEndedAfterItsTimeout(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		step berth.Step
		code int
		want []string
	}{
		"it heeds SIGTERM":       {step("a", "sleep 60"), 124, []string{"a failed", "b skipped"}},
		"it ignores SIGTERM":     {step("a", "trap '' TERM; sleep 60"), 124, []string{"a failed", "b skipped"}},
		"it ends well by itself": {step("a", "trap 'exit 0' TERM; while :; do sleep 0.01; done"), 124, []string{"a failed", "b skipped"}},
		"it may fail":            {ignoring(step("a", "sleep 60")), 0, []string{"a failed ignored", "b succeeded"}},
	} {
		start := time.Now()
		r, c := report(t, steps(within(30*time.Millisecond, tt.step), step("b", ":")), killsAfter(20*time.Millisecond))
		if c.ExitCode != tt.code || !slices.Equal(states(c), tt.want) || *c.Steps[0].ExitCode != 124 || time.Since(start) > patience/2 {
			t.Errorf("%s: %s after %s", name, toJSON(t, c), time.Since(start))
		}
		if !strings.Contains(c.Steps[0].Reason, "after its timeout of 30ms") || c.Fault != nil && c.Fault.Cause != berth.CauseTimedOut {
			t.Errorf("%s: %s", name, toJSON(t, c))
		}
		eventually(t, "all of it has ended", func() bool { return len(r.processes()) == 0 })
	}
}

func TestATimeoutEndsWhatTheStepStartedBeforeTheNextBegins(t *testing.T) {
	t.Parallel()
	for timeout := 50 * time.Millisecond; ; timeout *= 2 {
		pid := filepath.Join(t.TempDir(), "pid")
		// The script ends at once when told to, and leaves one that doesn't.
		a := step("a", "sh -c 'trap \"\" TERM; echo $$ >"+pid+"; sleep 60' & wait")
		b := step("b", "test ! -s "+pid+" || ! grep State /proc/$(cat "+pid+")/status 2>/dev/null")
		r, c := report(t, steps(ignoring(within(timeout, a)), b))
		if text, err := os.ReadFile(pid); (err != nil || len(text) == 0) && timeout < patience {
			continue // it had no time to begin
		}
		if c.ExitCode != 0 && !strings.Contains(r.log(), "zombie") {
			t.Errorf("%q, %s", r.log(), toJSON(t, c))
		}
		return
	}
}

func TestAStepThatIsInTimeHasNoTimeout(t *testing.T) {
	t.Parallel()
	if _, c := report(t, steps(within(time.Minute, step("a", "exit 5")))); c.ExitCode != 5 || c.Fault.Cause != berth.CauseExitedNonZero {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestNoShellIsBetweenTheArgumentsAndTheProgram(t *testing.T) {
	t.Parallel()
	args := []string{"a b", "$HOME", "*", "", "'q'", `"d"`, "`id`", "a;b", "~", "\\", "new\nline", "-é"}
	r, c := report(t, command(append([]string{"printf", "<%s>"}, args...)...))
	if want := "<" + strings.Join(args, "><") + ">"; r.log() != want {
		t.Errorf("got %q, want %q; %s", r.log(), want, toJSON(t, c))
	}
}

func TestAVariableIsOfItsStepAlone(t *testing.T) {
	t.Parallel()
	a, b := step("a", "echo $WORD $COMMON"), step("b", "echo ${WORD-unset} $COMMON")
	a.Env = []berth.EnvVar{{Name: "WORD", Value: "of a"}, {Name: "COMMON", Value: "changed"}}
	if r, _ := report(t, steps(a, b), with("COMMON=kept")); r.log() != "of a changed\nunset kept\n" {
		t.Errorf("got %q", r.log())
	}
}

func TestAStepDoesNotSeeTheOrder(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if r, _ := report(t, script("env"), callingBack(server.URL)); strings.Contains(r.log(), "BERTH_ORDER") || strings.Contains(r.log(), "token") {
		t.Errorf("got %q", r.log())
	}
}

func TestAScriptNeedsAShell(t *testing.T) {
	t.Parallel()
	_, c := report(t, script("echo"), with("PATH="+t.TempDir()))
	if c.ExitCode != 127 || c.Fault.Cause != berth.CauseCommandNotFound || !strings.Contains(c.Fault.Summary, "no shell (sh)") || !strings.Contains(c.Fault.Remedy, "command:") {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestFramesTellWhichStepTheLogIsOf(t *testing.T) {
	t.Parallel()
	r, _ := report(t, steps(step("a", "echo one"), step("b", "printf 'no newline'"), step("c", "echo to stderr >&2"), step("d", "printf '\\036berth other step 9\\n'; exit 1"), step("e", ":")))
	got := map[int]string{}
	var order []int
	current := 0
	for line := range strings.Lines(r.stdout.String()) {
		kind, value, frame := agent.ParseFrame(nonce, []byte(line))
		if !frame {
			got[current] += line
			continue
		}
		n, ok := agent.StepNumber(value)
		if kind != agent.FrameStep || !ok {
			t.Errorf("%q", line)
		}
		current = n
		order = append(order, n)
	}
	if !slices.Equal(order, []int{1, 2, 3, 4, 0}) { // e was skipped
		t.Errorf("frames of %v", order)
	}
	for n, want := range map[int]string{1: "one\n", 2: "no newline", 3: "", 4: "\x1eberth other step 9\n"} {
		if got[n] != want+"\n" { // a frame begins a line, whatever was before
			t.Errorf("step %d: %q, want %q", n, got[n], want)
		}
	}
	if r.stderr.String() != "to stderr\n" {
		t.Errorf("stderr %q", r.stderr)
	}
}

func TestATaskThatIsToldToEndStartsNoFurtherStep(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		step berth.Step
		code int
		want []string
	}{
		"its step ends by the signal":    {step("a", "echo ready; sleep 60"), 143, []string{"a failed", "b skipped"}},
		"its step ends well":             {step("a", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"), 143, []string{"a succeeded", "b skipped"}},
		"its step's failure is no other": {ignoring(step("a", "echo ready; sleep 60")), 143, []string{"a failed", "b skipped"}},
	} {
		r := begin(t, steps(tt.step, step("b", "echo ran")))
		r.stdout.until(t, "ready")
		r.signal(syscall.SIGTERM)
		code, c := r.end()
		if c == nil || code != tt.code || c.ExitCode != code || !c.Deferred || !slices.Equal(states(c), tt.want) {
			t.Errorf("%s: %d, %s", name, code, toJSON(t, c))
		}
	}
}
