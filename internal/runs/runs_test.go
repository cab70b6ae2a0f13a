package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// put stores a run of a program.
func (m *memory) put(id, program string, change ...func(*berth.RunRecord)) {
	r := berth.RunRecord{
		Run:    berth.Run{ID: id, Workflow: "flow.star", State: berth.RunRunning, On: "here", Infrastructure: "here", OnError: berth.OnErrorFinish, CreatedAt: time.Now()},
		Source: berth.WorkflowSource{Main: "flow.star", Files: map[string][]byte{"flow.star": []byte(program)}},
	}
	for _, f := range change {
		f(&r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records[id] = r
}

// resume has a run that has ended go on, with another program unless that is empty.
func (m *memory) resume(id, program string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[id]
	now := time.Now()
	r.Run.State, r.Run.Error, r.Run.Reason, r.Run.FinishedAt, r.Run.ResumedAt = berth.RunRunning, nil, nil, nil, &now
	if r.Run.Resumed++; program != "" {
		r.Source.Files = map[string][]byte{"flow.star": []byte(program)}
	}
	m.records[id] = r
}

// begin begins an Executor on what there is.
func begin(t *testing.T, m *memory, c *cluster) *Executor {
	t.Helper()
	e := New(m, c, newDisks(), noLease, slog.New(slog.DiscardHandler))
	t.Cleanup(e.Close)
	e.Take("here")
	return e
}

// finished waits for a run's end.
func finished(t *testing.T, e *Executor, id string) berth.Run {
	t.Helper()
	var last berth.Run
	for run, err := range e.Watch(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
		last = run
	}
	return last
}

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain until " + what)
		}
	}
}

func outputs(run berth.Run) string { return string(run.Result) }

func TestARunMakesItsCallsAndEndsWithTheValueOfMain(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", `
def main():
    print("begins")
    parts = run.map(args = [["a"], ["b"], ["c"]], image = "echo")
    first = run.submit("echo", ["first"])
    second = run.submit("echo", ["second"])
    return [p["output"].strip() for p in parts] + [first.result()["exit_code"], second.result()["task"] != ""]
`)
	e := begin(t, m, c)
	run := finished(t, e, "r-1")
	if run.State != berth.RunSucceeded || outputs(run) != `["a","b","c",0,true]` || run.FinishedAt == nil {
		t.Fatalf("%+v: %s", run, outputs(run))
	}
	var calls []berth.RunCall
	for call, err := range e.Calls(t.Context(), "r-1", true) {
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
	}
	if len(calls) != 6 || calls[0].State != berth.CallPrinted || *calls[0].Label != "begins" {
		t.Fatalf("%d calls: %+v", len(calls), calls)
	}
	for _, call := range calls[1:] {
		if call.State != berth.CallSucceeded || call.Task == nil || *call.Infrastructure != "here" || call.EndedAt == nil {
			t.Errorf("%+v", call)
		}
	}
}

// Wherever a process ends, the next one goes on, and nothing is done twice.
func TestARunGoesOnWhereAProcessEndedAndDoesNothingTwice(t *testing.T) {
	const program = `
def main():
    names = [run("echo", ["begin"])["output"].strip()]
    at = now()
    for i in range(5):
        names += [r["output"].strip() for r in run.map(args = [["%d.%d" % (i, j)] for j in range(4)], image = "echo")]
        sleep(0.001)
    print(at == now(), len(names))
    return [at, names]
`
	m, c := newMemory(), newCluster()
	m.put("r-1", program)
	ends := 0
	for m.records["r-1"].Run.State == berth.RunRunning {
		e := New(m, c, newDisks(), noLease, slog.New(slog.DiscardHandler))
		e.Take("here")
		before := m.count()
		until(t, "something more is stored", func() bool { return m.count() > before || m.ended("r-1") })
		e.Close() // in the middle of something
		ends++
	}
	run, _ := m.Run(t.Context(), "r-1")
	if run.State != berth.RunSucceeded || ends < 3 {
		t.Fatalf("after %d ends: %+v %v", ends, run, run.Error)
	}
	want := []string{"echo begin"}
	for i := range 5 {
		for j := range 4 {
			want = append(want, fmt.Sprintf("echo %d.%d", i, j))
		}
	}
	if got := c.done(); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("done: %v", got)
	}
	t.Logf("%d processes", ends)
}

func (m *memory) count() int { m.mu.Lock(); defer m.mu.Unlock(); return m.commits }
func (m *memory) ended(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records[id].Run.State.Terminal()
}

func TestAFailureIsThatOfTheProgramWithItsStackAndTask(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", "def part():\n    return run(\"fail\")\n\ndef main():\n    other = run.submit(\"echo\", [\"other\"])\n    part()\n")
	run := finished(t, begin(t, m, c), "r-1")
	if run.State != berth.RunFailed || run.Error == nil || run.Error.Call == nil {
		t.Fatalf("%+v", run)
	}
	if e := run.Error; e.Call.Task == "" || e.Call.Diagnosis.Cause != berth.CauseExitedNonZero || *e.Call.ExitCode != 3 || len(e.Stack) != 2 || e.Stack[1].Line != 2 || !strings.Contains(e.Message, "It ended with exit code 3.") {
		t.Errorf("%+v", e)
	}
	if got := c.done(); !slices.Equal(got, []string{"echo other", "fail"}) || run.Calls[berth.CallSucceeded] != 1 || run.Calls[berth.CallFailed] != 1 {
		t.Errorf("%v %v", got, run.Calls)
	}
}

func TestOtherCallsAreCancelledWhereThatIsAskedFor(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", "def main():\n    run.submit(\"never\")\n    run(\"fail\")\n", func(r *berth.RunRecord) { r.Run.OnError = berth.OnErrorCancel })
	run := finished(t, begin(t, m, c), "r-1")
	if run.State != berth.RunFailed || run.Calls[berth.CallCancelled] != 1 || run.Calls[berth.CallFailed] != 1 {
		t.Errorf("%+v", run)
	}
	for _, task := range c.byID {
		if !task.now().State.Terminal() {
			t.Errorf("a task is left: %+v", task.now())
		}
	}
}

func TestACancelledRunCancelsItsTasks(t *testing.T) {
	for _, how := range []string{"while it goes on", "by the next process"} {
		t.Run(how, func(t *testing.T) {
			m, c := newMemory(), newCluster()
			m.put("r-1", "def main():\n    run.map(args = [[\"a\"], [\"b\"]], image = \"never\")\n")
			e := begin(t, m, c)
			until(t, "both run", func() bool { return len(c.done()) == 2 })
			if how == "by the next process" {
				e.Close()
			}
			m.mu.Lock()
			r := m.records["r-1"]
			at := time.Now()
			r.Run.CancelledAt = &at
			m.records["r-1"] = r
			m.mu.Unlock()
			if how == "by the next process" {
				e = begin(t, m, c)
			}
			e.Cancel("r-1")
			run := finished(t, e, "r-1")
			if run.State != berth.RunCancelled || run.Calls[berth.CallCancelled] != 2 {
				t.Errorf("%+v", run)
			}
			if got := c.done(); len(got) != 2 {
				t.Errorf("begun anew: %v", got)
			}
			for _, task := range c.byID {
				if task.now().State != berth.StateCancelled {
					t.Errorf("%+v", task.now())
				}
			}
		})
	}
}

func TestAResumedRunMakesNoCallAgainThatEndedWell(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", `
def main():
    one = run("echo", ["one"])["output"].strip()
    lost = try_call(run, "fail", ["handled"])
    two = run("fail", [one])
    return [one, lost.exit_code, two["exit_code"]]
`)
	if run := finished(t, begin(t, m, c), "r-1"); run.State != berth.RunFailed {
		t.Fatalf("%+v", run)
	}
	c.do["fail"] = func(context.Context, []string) (string, int) { return "", 0 } // somebody mended it
	m.resume("r-1", "")
	run := finished(t, begin(t, m, c), "r-1")
	if run.State != berth.RunSucceeded || outputs(run) != `["one",3,0]` {
		t.Fatalf("%+v %s %v", run, outputs(run), run.Error)
	}
	if got, want := c.done(), []string{"echo one", "fail handled", "fail one", "fail one"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if run.Diverged != nil {
		t.Errorf("diverged: %s", *run.Diverged)
	}
}

func TestAnEditedProgramIsTakenAsFarAsItDoesWhatTheRunDid(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", "def main():\n    a = run(\"echo\", [\"a\"])[\"output\"].strip()\n    b = run(\"echo\", [a + \"b\"])[\"output\"].strip()\n    return a + b + 1\n")
	if run := finished(t, begin(t, m, c), "r-1"); run.State != berth.RunFailed || len(run.Error.Stack) == 0 {
		t.Fatalf("%+v", run)
	}
	m.resume("r-1", "def main():\n    a = run(\"echo\", [\"a\"])[\"output\"].strip()\n    b = run(\"echo\", [a + \"B\"])[\"output\"].strip()\n    return a + b\n")
	run := finished(t, begin(t, m, c), "r-1")
	if run.State != berth.RunSucceeded || outputs(run) != `"aaB"` {
		t.Fatalf("%+v %v", run, run.Error)
	}
	if run.Diverged == nil || !strings.HasPrefix(*run.Diverged, "flow.star:3:") || !strings.Contains(*run.Diverged, "main:run#2") {
		t.Errorf("where it went another way: %v", run.Diverged)
	}
	if got, want := c.done(), []string{"echo a", "echo aB", "echo ab"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWhatPassesIsTriedAgainAndWhatDoesNotFailsTheCall(t *testing.T) {
	m, c := newMemory(), newCluster()
	c.away, m.failing = 3, 2
	c.refused["large"] = &berth.Error{Code: berth.CodeInvalid, Err: fmt.Errorf("no node is as large"), Diagnosis: &berth.Diagnosis{Cause: berth.CauseInsufficientMemory, Summary: "No node has 9Ti."}}
	m.put("r-1", "def main():\n    run(\"echo\", [\"a\"])\n    return try_call(run, \"large\").cause\n")
	run := finished(t, begin(t, m, c), "r-1")
	if run.State != berth.RunSucceeded || outputs(run) != `"InsufficientMemory"` {
		t.Errorf("%+v %s", run, outputs(run))
	}
}

func TestARunHasLimits(t *testing.T) {
	for program, limits := range map[string]berth.RunLimits{
		"def main():\n    for i in range(100000000):\n        pass\n": {Steps: 1000},
		"def main():\n    run(\"never\")\n":                           {Timeout: 50 * time.Millisecond},
	} {
		m, c := newMemory(), newCluster()
		m.put("r-1", program, func(r *berth.RunRecord) { r.Run.Limits = limits })
		run := finished(t, begin(t, m, c), "r-1")
		if run.State != berth.RunFailed || run.Error == nil || !strings.Contains(run.Error.Message, "steps") && !strings.Contains(run.Error.Message, "50ms") {
			t.Errorf("%s: %+v %v", program, run, run.Error)
		}
		for _, task := range c.byID {
			if !task.now().State.Terminal() {
				t.Errorf("a task is left: %+v", task.now())
			}
		}
	}
}

func TestAnInfrastructureThatIsGivenAwayTakesItsRunsWithIt(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", "def main():\n    run(\"never\")\n")
	e := begin(t, m, c)
	until(t, "it runs", func() bool { return len(c.done()) == 1 })
	e.Drop("here")
	if run, _ := m.Run(t.Context(), "r-1"); run.State != berth.RunRunning {
		t.Errorf("%+v", run)
	}
	for _, task := range c.byID {
		if task.now().State != berth.StateRunning {
			t.Errorf("its task has ended: %+v", task.now())
		}
	}
	begin(t, m, c)
	until(t, "another goes on with it", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.calls["r-1"]) == 1 })
	if got := c.done(); len(got) != 1 {
		t.Errorf("begun anew: %v", got)
	}
}

func TestTheOutputOfAPlainTaskIsBounded(t *testing.T) {
	m, c := newMemory(), newCluster()
	c.do["loud"] = func(context.Context, []string) (string, int) {
		return strings.Repeat("a line of text\n", 200_000) + "last\n", 0
	}
	m.put("r-1", "def main():\n    r = run(\"loud\")\n    return [r[\"truncated\"], r[\"output\"].endswith(\"\\nlast\\n\"), r[\"output\"].startswith(\"a line\"), len(r[\"output\"]) <= 512 * 1024]\n")
	run := finished(t, begin(t, m, c), "r-1")
	if outputs(run) != "[true,true,true,true]" {
		t.Errorf("%+v %s", run, outputs(run))
	}
}

func TestAnEqualCallIsAnsweredByTheCache(t *testing.T) {
	const digest = "echo@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	m, c := newMemory(), newCluster()
	c.do[digest] = c.do["echo"]
	program := "def main(word, env = {}):\n    return run(\"" + digest + "\", [word], env = env, cache = True)[\"output\"].strip()\n"
	start := func(id, owner, word, env string) berth.Run {
		m.put(id, program, func(r *berth.RunRecord) {
			r.Caller.Name = owner
			r.Run.Arguments = map[string]json.RawMessage{"word": json.RawMessage(word), "env": json.RawMessage(env)}
		})
		run := finished(t, begin(t, m, c), id)
		if run.State != berth.RunSucceeded {
			t.Fatalf("%+v %v", run, run.Error)
		}
		return run
	}
	for i, tt := range []struct {
		owner, word, env string
		hit              bool
	}{
		{"ada", `"a"`, "{}", false},
		{"ada", `"a"`, "{}", true},
		{"ada", `"b"`, "{}", false},
		{"ada", `"a"`, `{"X": "1"}`, false},
		{"bob", `"a"`, "{}", false},
		{"bob", `"a"`, "{}", true},
	} {
		before := len(c.done())
		id := fmt.Sprintf("r-%d", i)
		run := start(id, tt.owner, tt.word, tt.env)
		if outputs(run) != tt.word {
			t.Errorf("%d: %s", i, outputs(run))
		}
		call := m.calls[id]["main:run#1"]
		if hit := call.Cached != nil; hit != tt.hit || hit != (len(c.done()) == before) || hit && call.Task != nil {
			t.Errorf("%d: answered by the cache %t, want %t: %+v", i, hit, tt.hit, call)
		}
	}
}

func TestWhatMayChangeIsNotCached(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", "def main():\n    return try_call(run, \"echo\", [\"a\"], cache = True).error\n")
	if run := finished(t, begin(t, m, c), "r-1"); !strings.Contains(outputs(run), "name it by its digest") || len(c.done()) != 0 {
		t.Errorf("%s, %v", outputs(run), c.done())
	}
}

func TestWhatAProgramPrintsIsBounded(t *testing.T) {
	m, c := newMemory(), newCluster()
	m.put("r-1", "def main():\n    print(\"x\" * 100000)\n    for i in range(20000):\n        print(i)\n")
	if run := finished(t, begin(t, m, c), "r-1"); run.State != berth.RunSucceeded {
		t.Fatalf("%+v", run)
	}
	if n := len(m.calls["r-1"]); n != maxPrinted {
		t.Errorf("%d lines are kept", n)
	}
	if n := len(*m.calls["r-1"]["print#1"].Label); n > maxPrintedBytes+10 {
		t.Errorf("a line of %d bytes", n)
	}
}
