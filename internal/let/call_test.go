package let

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// number is the output that most functions here have.
var number = []berth.Parameter{{Name: "n", Type: "integer"}}

// inPackage gives the agent a package that is in a folder of its own.
func inPackage(t *testing.T, p berth.Package) given {
	t.Helper()
	if p.WorkDir == "" {
		p.WorkDir = t.TempDir()
	}
	if p.Entrypoint.Exec == "" {
		p.Entrypoint.Exec = "sh"
	}
	return with(packageVar + "=" + write(t, filepath.Join(t.TempDir(), "package.json"), toJSON(t, p), 0o600))
}

// calling is a call of a function whose program is a script.
func calling(t *testing.T, fn berth.Function, text string) (*agent.Order, given) {
	t.Helper()
	fn.Name, fn.Args = "f", []string{"-c", text}
	return &agent.Order{Call: &agent.Call{Function: "f"}}, inPackage(t, berth.Package{Functions: []berth.Function{fn}})
}

func invoke(t *testing.T, fn berth.Function, text string, how ...given) (*running, *agent.Completion) {
	t.Helper()
	order, package_ := calling(t, fn, text)
	return report(t, order, append(how, package_)...)
}

func TestTheResultIsWhereTheFunctionSaysAndTheRestIsLog(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		capture           berth.Capture
		outputs           []berth.Parameter
		text, result, log string
	}{
		"complete":       {berth.CaptureComplete, number, "echo 'n: 5'", "5", ""},
		"by default":     {"", number, "echo '{\"n\": 5}'", "5", ""},
		"marked":         {berth.CaptureMarked, number, "echo a; echo '--> START CAPTURE'; echo n: 5; echo '--> END CAPTURE'; echo b", "5", "a\nb"},
		"prefixed":       {berth.CapturePrefixed, number, "echo a; echo '~~>n: 5'; echo b", "5", "a\nb"},
		"several":        {berth.CapturePrefixed, append(number, berth.Parameter{Name: "s", Type: "string"}), "echo '~~>n: 5'; echo '~~>s: five'; echo '~~>other: x'", `{"n":5,"s":"five"}`, ""},
		"of no outputs":  {berth.CaptureComplete, nil, "echo all; echo of it", "null", "all\nof it"},
		"no line's end":  {berth.CapturePrefixed, number, "printf 'a\n~~>n: 5'", "5", "a"},
		"stderr is none": {berth.CaptureComplete, number, "echo 'n: 6' >&2; echo 'n: 5'", "5", ""},
	} {
		r, c := invoke(t, berth.Function{Capture: tt.capture, Outputs: tt.outputs}, tt.text)
		if c.ExitCode != 0 || c.Fault != nil || string(c.Result) != tt.result || strings.TrimSpace(r.log()) != tt.log {
			t.Errorf("%s: %s, log %q", name, toJSON(t, c), r.log())
		}
	}
}

func TestTheOutputFileCountsBeforeStdout(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"echo 'n: 1'; echo '{\"n\": 2}' >$BERTH_OUTPUT": "2",
		"echo 'n: 1'; : >$BERTH_OUTPUT":                 "1", // it was made and not used
		"echo 'n: 1'; echo >$BERTH_OUTPUT":              "1",
		"echo noise; echo 'n: 3' >$BERTH_OUTPUT":        "3",
	} {
		if _, c := invoke(t, berth.Function{Outputs: number}, text); string(c.Result) != want {
			t.Errorf("%s: %s", text, toJSON(t, c))
		}
	}
}

func TestAResultThatIsNoneFailsAFunctionThatEndedWell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		cause   berth.Cause
		summary string
	}{
		":":                                  {berth.CauseResultMissing, "gave no output"},
		"echo 'm: 5'":                        {berth.CauseResultMissing, `The output "n" (integer) of f is missing; the program gave "m".`},
		"echo 'n: five'":                     {berth.CauseResultMalformed, `The output "n" of f is not of its type`},
		"echo 'n: [1'":                       {berth.CauseResultMalformed, "neither YAML nor JSON"},
		`printf '\177ELF\000\001'`:           {berth.CauseResultMalformed, "binary"},
		`printf 'n: \377'`:                   {berth.CauseResultMalformed, "not UTF-8"},
		"mkdir $BERTH_OUTPUT":                {berth.CauseResultMalformed, "not a regular file"},
		"mkfifo $BERTH_OUTPUT":               {berth.CauseResultMalformed, "not a regular file"},
		"ln -s /no/such/place $BERTH_OUTPUT": {berth.CauseResultMissing, "gave no output"},
		"head -c 4194305 /dev/zero >$BERTH_OUTPUT": {berth.CauseResultMalformed, "larger than 4 MiB"},
	} {
		_, c := invoke(t, berth.Function{Outputs: number}, text)
		if c.ExitCode != 0 || c.Result != nil || c.Fault == nil || c.Fault.Cause != want.cause || !strings.Contains(c.Fault.Summary, want.summary) {
			t.Errorf("%s: %.1000s", text, toJSON(t, c))
		}
	}
}

func TestAResultTakesAtMostAMebibyte(t *testing.T) {
	t.Parallel()
	fn := berth.Function{Outputs: []berth.Parameter{{Name: "s", Type: "string"}}}
	_, c := invoke(t, fn, `printf '{"s":"'; head -c 1048575 /dev/zero | tr '\0' a; echo '"}'`) // and two quotes
	if c.Result != nil || c.Fault == nil || c.Fault.Cause != berth.CauseResultMalformed || !strings.Contains(c.Fault.Summary, "takes 1048577 bytes; at most 1 MiB") {
		t.Errorf("%d bytes, %s", len(c.Result), toJSON(t, c.Fault))
	}
}

func TestEndlessOutputIsEndedWhereItWouldBeTheResult(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"yes": "exec yes", "a stubborn one": "trap '' TERM; exec yes 2>/dev/null"} {
		start := time.Now()
		r, c := invoke(t, berth.Function{Outputs: number}, text, killsAfter(20*time.Millisecond))
		if c.Fault == nil || c.Fault.Cause != berth.CauseResultMalformed || !strings.Contains(c.Fault.Summary, "more than 4 MiB") || time.Since(start) > patience/2 {
			t.Errorf("%s: %.300s", name, toJSON(t, c))
		}
		if len(toJSON(t, c)) > 8<<10 || len(r.log()) > 8<<10 {
			t.Errorf("%s: a report of %d bytes, a log of %d", name, len(toJSON(t, c)), len(r.log()))
		}
	}
}

func TestALogMayBeLargerThanAnyResult(t *testing.T) {
	t.Parallel()
	r, c := invoke(t, berth.Function{Capture: berth.CapturePrefixed, Outputs: number}, "head -c 4300000 /dev/zero | tr '\\0' x | fold -w 1000; echo; echo '~~>n: 5'")
	if string(c.Result) != "5" || strings.Count(r.log(), "x") != 4300000 {
		t.Errorf("%s, a log of %d bytes", toJSON(t, c), len(r.log()))
	}
}

func TestAFunctionThatFailsHasNoResultAndWhatItPrintedIsLog(t *testing.T) {
	t.Parallel()
	for _, capture := range []berth.Capture{berth.CaptureComplete, berth.CapturePrefixed} {
		r, c := invoke(t, berth.Function{Capture: capture, Outputs: number}, "echo 'no such table'; echo 'n: 5' >$BERTH_OUTPUT; exit 3")
		if c.ExitCode != 3 || c.Result != nil || c.Fault != nil || r.log() != "no such table\n" {
			t.Errorf("%s: %s, log %q", capture, toJSON(t, c), r.log())
		}
	}
	if _, c := invoke(t, berth.Function{Outputs: number}, "kill -KILL $$"); c.ExitCode != 137 || !c.Deferred {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestALogThatIsGoneIsNotTheResultsFault(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer writer.Close()
	_, c := invoke(t, berth.Function{Capture: berth.CapturePrefixed, Outputs: number}, "echo a; echo '~~>n: 5'", writingTo(writer))
	if c.Fault == nil || c.Fault.Cause != berth.CauseUnknown || !strings.Contains(c.Fault.Summary, "log can't be written") || c.ExitCode != exitAgent {
		t.Errorf("got %s", toJSON(t, c))
	}
}

// leaving runs a program that gives 5 and leaves something behind.
func leaving(t *testing.T, text string, how ...given) {
	t.Helper()
	start := time.Now()
	r, c := invoke(t, berth.Function{Outputs: number}, text, how...)
	if c.ExitCode != 0 || string(c.Result) != "5" || time.Since(start) > patience/2 {
		t.Errorf("%s: %s after %s, stderr %s", text, toJSON(t, c), time.Since(start), r.stderr)
	}
	eventually(t, "all of it has ended", func() bool { return len(r.processes()) == 0 })
}

func TestWhatAProgramLeavesBehindIsEndedAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	leaving(t, "sh -c \"trap '' TERM; sleep 60\" & echo 'n: 5'")
	leaving(t, "sh -c 'while echo \"m: 6\"; do sleep 0.01; done' & echo 'n: 5' >$BERTH_OUTPUT")
}

func TestWhatLeftTheProgramsGroupHoldsNothingUpEither(t *testing.T) {
	t.Parallel()
	order, package_ := calling(t, berth.Function{Capture: berth.CapturePrefixed, Outputs: number}, `
		exec 2>/dev/null # or the test would wait for its end
		setsid sh -c 'while echo on and on; do :; done' &
		setsid sleep 60 & echo '~~>n: 5'`)
	r := begin(t, order, package_)
	code, c := r.end()
	if code != 0 || c == nil || string(c.Result) != "5" {
		t.Errorf("%d, %s", code, toJSON(t, c))
	}
	for _, pid := range r.processes() { // not being PID 1, the agent must not
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestASlowReaderOfTheLogLosesNothingOfTheResult(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// More than the log's pipe takes, less than it and the program's do.
	order, package_ := calling(t, berth.Function{Capture: berth.CapturePrefixed, Outputs: number}, `
		sh -c 'trap "" TERM; sleep 60' & echo left $! >&2
		head -c 110000 /dev/zero | tr '\0' x | fold -w 1000; echo; echo '~~>n: 5'`)
	r := begin(t, order, package_, writingTo(writer))
	writer.Close()
	left, err := strconv.Atoi(r.stderr.until(t, "left "))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was left has ended", func() bool { _, _, there := stat(left); return !there })
	log := make(chan string, 1)
	go func() { text, _ := io.ReadAll(reader); log <- string(text) }()
	code, c := r.end()
	if got := strings.Count(<-log, "x"); code != 0 || c == nil || string(c.Result) != "5" || got != 110000 {
		t.Errorf("%d, %s, a log of %d", code, toJSON(t, c), got)
	}
}

func TestAsPID1TheAgentEndsWhatLeftTheProgramsGroupToo(t *testing.T) {
	t.Parallel()
	leaving(t, "setsid sleep 60 & echo 'n: 5'", asPID1)
}

func TestAProgramMayCloseItsOutputBeforeItEnds(t *testing.T) {
	t.Parallel()
	_, c := invoke(t, berth.Function{Outputs: number}, "echo 'n: 5'; exec >&-; sleep 0.02; exit 0")
	if string(c.Result) != "5" {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestACallThatIsToldToEndIsDeferred(t *testing.T) {
	t.Parallel()
	order, package_ := calling(t, berth.Function{Capture: berth.CapturePrefixed, Outputs: number}, "trap '' TERM; echo ready; sleep 60")
	r := begin(t, order, package_, killsAfter(20*time.Millisecond))
	r.stdout.until(t, "ready")
	r.signal(syscall.SIGTERM)
	if code, c := r.end(); code != 137 || c == nil || !c.Deferred || c.Result != nil {
		t.Errorf("%d, %s", code, toJSON(t, c))
	}
}

func TestArgumentsComeAsVariablesAndAsAFile(t *testing.T) {
	t.Parallel()
	order, _ := calling(t, berth.Function{}, "")
	order.Call.Arguments = map[string]json.RawMessage{"level": json.RawMessage(`"high $x"`), "at": json.RawMessage(`[1,2]`)}
	fn := berth.Function{Name: "f", Args: []string{"-c", `printenv LEVEL; printenv AT_1; cat $BERTH_INPUT; stat -c %a $BERTH_INPUT; dirname $BERTH_INPUT`},
		Inputs: []berth.Parameter{{Name: "level", Type: "string"}, {Name: "at", Type: "integer[]"}}}
	r, c := report(t, order, inPackage(t, berth.Package{Functions: []berth.Function{fn}}), with("LEVEL=of the image"))
	lines := strings.Split(strings.TrimSpace(r.log()), "\n")
	want := []string{"high $x", "2", `{"at":[1,2],"level":"high $x"}`, "600"}
	if c.ExitCode != 0 || len(lines) != 5 || !slices.Equal(lines[:4], want) {
		t.Fatalf("%s, log %q", toJSON(t, c), r.log())
	}
	if _, err := os.Stat(lines[4]); err == nil {
		t.Errorf("%s is left", lines[4])
	}
}
