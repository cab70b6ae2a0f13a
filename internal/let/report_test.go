package let

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// messageIn has the report left in a file.
func messageIn(path string) given {
	return func(r *running, o *agent.Order) { r.message, o.Message.Path = path, path }
}

func TestTheReportIsWrittenIntoTheFileThatIsThere(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "message"), strings.Repeat("of an earlier one", 1000), 0o600)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	_, c := report(t, script("exit 3"), messageIn(path))
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || c.ExitCode != 3 {
		t.Errorf("%v, %s", err, toJSON(t, c))
	}
}

func TestAReportThatCantBeLeftChangesNoExitCode(t *testing.T) {
	t.Parallel()
	r := begin(t, script("exit 3"), messageIn("/no/such/folder/message"))
	if code, c := r.end(); code != 3 || c != nil || !strings.Contains(r.stderr.String(), "cannot leave the report with the container") {
		t.Errorf("%d, %s, stderr %q", code, toJSON(t, c), r.stderr)
	}
}

func TestWhatDoesNotFitIntoTheMessageGoesToTheEndOfTheLog(t *testing.T) {
	t.Parallel()
	for size, inLog := range map[string]bool{"100": false, "4000": true, "200000": true} {
		fn := berth.Function{Capture: berth.CapturePrefixed, Outputs: []berth.Parameter{{Name: "s", Type: "string"}}}
		r, c := invoke(t, fn, "printf 'no newline\n~~>{\"s\":\"'; head -c "+size+" /dev/zero | tr '\\0' a; echo '\"}'; printf end", limit(3<<10))
		message, err := os.ReadFile(r.message)
		if err != nil || len(message) > 3<<10 {
			t.Errorf("%s: a message of %d bytes, %v", size, len(message), err)
		}
		if frames := strings.Contains(r.stdout.String(), "\x1eberth "+nonce+" result "); frames != inLog || strings.Trim(string(c.Result), `"a`) != "" || len(c.Result) < 100 {
			t.Errorf("%s: frames %v, %d bytes", size, frames, len(c.Result))
		}
		if got := strings.TrimSpace(r.log()); got != "no newline\nend" {
			t.Errorf("%s: log %.100q", size, got)
		}
	}
}

// A pipe takes a frame whole, but not two of them.
func TestAReportInTheLogIsWholeWhateverElseIsWritten(t *testing.T) {
	t.Parallel()
	var order agent.Order
	for range 200 { // their states are too much for the message
		order.Steps = append(order.Steps, berth.Step{Name: strings.Repeat("n", 60), Command: []string{"/no/such/command"}, IgnoreFailure: true})
	}
	order.Steps[0] = step("writer", "sh -c 'while printf x; do :; done' & sh -c 'while printf y; do :; done' & echo started")
	r, c := report(t, &order, limit(3<<10), asPID1)
	if len(c.Steps) != len(order.Steps) || c.ExitCode != 0 || !strings.Contains(r.log(), "started") {
		t.Errorf("%d steps, exit code %d", len(c.Steps), c.ExitCode)
	}
}

// events are what a control plane was told, in the order that it was.
func (c *control) events() (of []agent.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, report := range c.reports {
		of = append(of, report.Events...)
	}
	return of
}

func told(events []agent.Event) string {
	var of []string
	for _, e := range events {
		of = append(of, string(e.Type)+": "+e.Message)
	}
	return strings.Join(of, "\n")
}

func TestTheControlPlaneIsToldOfEachStep(t *testing.T) {
	t.Parallel()
	server := newControl(t)
	_, c := report(t, steps(step("a", ":"), ignoring(step("b", "exit 3")), step("c", "exit 4"), step("d", ":")), callingBack(server.URL))
	events := server.events()
	want := strings.Join([]string{
		"Ready: ",
		"StepStarted: step a (1 of 4)", "StepFinished: step a (1 of 4): succeeded",
		"StepStarted: step b (2 of 4)", "StepFinished: step b (2 of 4): failed, exit code 3",
		"StepStarted: step c (3 of 4)", "StepFinished: step c (3 of 4): failed, exit code 4",
		"Completed: exit code 4",
	}, "\n")
	if got := told(events); got != want {
		t.Fatalf("told\n%s\nwant\n%s", got, want)
	}
	for i, e := range events {
		if e.Seq != i+1 || e.At.IsZero() || i > 0 && e.At.Before(events[i-1].At) || e.Step != (i+1)/2 && e.Type != berth.EventCompleted {
			t.Errorf("%s", toJSON(t, e))
		}
	}
	if toJSON(t, events[7].Completion) != toJSON(t, c) {
		t.Errorf("told %s and left %s", toJSON(t, events[7].Completion), toJSON(t, c))
	}
}

func TestAStepsEventHasItsStateOfThen(t *testing.T) {
	t.Parallel()
	server := newControl(t)
	report(t, steps(step("a", ":")), callingBack(server.URL))
	events := server.events()
	if len(events) != 4 || events[1].Status.State != berth.StepRunning || events[1].Status.ExitCode != nil || events[2].Status.State != berth.StepSucceeded {
		t.Errorf("got %s", toJSON(t, events))
	}
}

func TestTheControlPlaneIsToldHowACallGoes(t *testing.T) {
	t.Parallel()
	server := newControl(t)
	invoke(t, berth.Function{Outputs: number}, "echo n: 5", callingBack(server.URL))
	events := server.events()
	if got := told(events); got != "Ready: \nInitialized: function f\nStarted: \nCompleted: exit code 0" || string(events[3].Completion.Result) != "5" {
		t.Errorf("got %s", got)
	}
}

func TestACallWhoseControlPlaneRefusesItStillLeavesItsReport(t *testing.T) {
	t.Parallel()
	server := newControl(t, 410)
	if _, c := invoke(t, berth.Function{Outputs: number}, "echo n: 5", callingBack(server.URL)); string(c.Result) != "5" {
		t.Errorf("got %s", toJSON(t, c))
	}
	if got := server.got(); len(got) != 1 {
		t.Errorf("%d reports", len(got))
	}
}

func TestAnOrderOfNothingIsAFault(t *testing.T) {
	t.Parallel()
	if _, c := report(t, &agent.Order{}); c.ExitCode != exitAgent || c.Fault == nil || c.EndedAt.IsZero() {
		t.Errorf("got %s", toJSON(t, c))
	}
}

func TestAProbeReachesTheControlPlane(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	for _, url := range []string{"", server.URL} {
		if _, c := report(t, &agent.Order{Probe: &agent.Probe{URL: url}}); c.ExitCode != 0 || c.Fault != nil {
			t.Errorf("%q: %s", url, toJSON(t, c))
		}
	}
}

func TestTheAgentSaysWhatItIsStartedFor(t *testing.T) {
	t.Parallel()
	there := filepath.Join(t.TempDir(), "berthlet")
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"version"}, 0, "berthlet, protocol 1"},
		{[]string{"install", there}, 0, ""},
		{[]string{"install", "/no/such/folder/berthlet"}, exitAgent, "berthlet: open"},
		{[]string{"help"}, exitAgent, "it is started by Berth"},
		{nil, exitAgent, "BERTH_ORDER_1 is missing"},
	} {
		r := begin(t, &agent.Order{}, func(r *running, o *agent.Order) {
			r.cmd.Args = append(r.cmd.Args, tt.args...)
			r.cmd.Env = append(r.cmd.Env, "BERTH_ORDER_2=of another")
		})
		if code, _ := r.end(); code != tt.code || !strings.Contains(r.stdout.String()+r.stderr.String(), tt.says) {
			t.Errorf("%q: %d, %s%s", tt.args, code, r.stdout, r.stderr)
		}
	}
	if info, err := os.Stat(there); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}
