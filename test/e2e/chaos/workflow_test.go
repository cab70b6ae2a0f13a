//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// steps makes calls one after the other and at the same time, and has a failure
// that it goes on with. Each call tells the ledger its token.
const steps = `
def text(result):
    return result["output"].strip()

def part(name):
    return text(run(image, call[name]))

def main():
    first = part("first")
    at = now()
    both = [text(r) for r in run.map(args = [call["left"], call["right"]], image = image)]
    later = run.submit(image, call["later"])
    lost = try_call(run, image, call["failing"])
    sleep(0.2)
    print("nearly done")
    return [first, both, text(later.result()), lost.exit_code, at == now()]
`

// The control plane dies each time that it has submitted a call, and at each
// place between two writes of a run: the result is the same, and no call is made
// twice.
func TestAWorkflowWhoseControlPlaneDiesAtEachStep(t *testing.T) {
	t.Parallel()
	for n := range 5 {
		t.Run(fmt.Sprintf("call %d", n+1), func(t *testing.T) {
			t.Parallel()
			crashInRun(t, fmt.Sprintf("runs.submitted:%d", n+1))
		})
	}
	t.Run("each process at its first", func(t *testing.T) {
		t.Parallel()
		crashInRun(t, "runs.submitted", "runs.kept", "runs.submitted", "runs.kept:2", "runs.submitted", "runs.replayed", "runs.finished")
	})
}

// crashInRun runs the workflow on control planes of which the first die where
// they are told to.
func crashInRun(t *testing.T, points ...string) {
	w := newWorkload(t)
	p := newPlane(t, newNamespace(t), "", "")
	p.start(points...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tokens := []string{"first", "left", "right", "later", "failing"}
	calls := map[string][]string{}
	for _, token := range tokens {
		script := "echo " + token
		if token == "failing" {
			script = "exit 3"
		}
		calls[token] = w.ledger.program(token, script)
	}
	table, err := json.Marshal(calls) // which Starlark reads as well
	if err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("image = %q\ncall = %s\n%s", busybox, table, steps)
	submission := berth.RunSubmission{Key: "once", Source: berth.WorkflowSource{Main: "steps.star", Files: map[string][]byte{"steps.star": []byte(program)}}}
	run, err := persist(ctx, w, "starting the run", func() (berth.Run, error) { return p.service.StartRun(ctx, submission) })
	if err != nil {
		t.Fatal(err)
	}
	run, err = persist(ctx, w, "waiting for the run", func() (berth.Run, error) {
		last := run
		for now, err := range p.service.WatchRun(ctx, run.ID) {
			if err != nil {
				return last, err
			}
			last = now
		}
		return last, nil
	})
	if err != nil || run.State != berth.RunSucceeded {
		t.Fatalf("%v: %+v: %v", err, run, run.Error)
	}
	var result []any
	if err := json.Unmarshal(run.Result, &result); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(result...), fmt.Sprint("first", []any{"left", "right"}, "later", 3.0, false); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, token := range tokens {
		if runs := w.ledger.of(token); len(runs) != 1 || !runs[0].ended {
			t.Errorf("%s ran so: %+v", token, runs)
		}
	}
	if got := w.ledger.tokens(); len(got) != len(tokens) {
		t.Errorf("what ran: %s", strings.Join(got, " "))
	}
	if !p.dies(len(points), 10*time.Second) {
		t.Errorf("%d control planes died, of %v", p.kills(), points)
	}
}
