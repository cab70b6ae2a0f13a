package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// cluster is Tasks of a test: what a task's image is, is done with it.
type cluster struct {
	mu      sync.Mutex
	do      map[string]func(ctx context.Context, args []string) (output string, code int)
	tasks   map[string]*task // by key
	byID    map[string]*task
	refused map[string]error // by image
	away    int              // submissions that are answered by nobody
	begun   []string         // what was done, once each
}

type task struct {
	mu        sync.Mutex
	it        berth.Task
	output    string
	ended     chan struct{}
	cancel    context.CancelFunc
	cancelled bool
}

func newCluster() *cluster {
	return &cluster{tasks: map[string]*task{}, byID: map[string]*task{}, refused: map[string]error{}, do: map[string]func(context.Context, []string) (string, int){
		"echo":  func(_ context.Context, args []string) (string, int) { return strings.Join(args, " ") + "\n", 0 },
		"fail":  func(context.Context, []string) (string, int) { return "oh\n", 3 },
		"never": func(ctx context.Context, _ []string) (string, int) { <-ctx.Done(); return "", 143 },
	}}
}

func (c *cluster) SubmitTask(_ context.Context, s berth.Submission) (berth.Task, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away > 0 {
		c.away--
		return berth.Task{}, berth.Errorf(berth.CodeUnavailable, "nobody is there")
	}
	if err := c.refused[s.Spec.Image]; err != nil {
		return berth.Task{}, err
	}
	if t := c.tasks[s.Key]; t != nil {
		return t.now(), nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{it: berth.Task{ID: fmt.Sprintf("t%d", len(c.tasks)+1), State: berth.StateRunning, Infrastructure: s.Spec.Infrastructure, Spec: s.Spec}, ended: make(chan struct{}), cancel: cancel}
	c.tasks[s.Key], c.byID[t.it.ID] = t, t
	c.begun = append(c.begun, strings.TrimSpace(s.Spec.Image+" "+strings.Join(s.Spec.Args, " ")))
	do := c.do[s.Spec.Image]
	go func() {
		output, code := do(ctx, s.Spec.Args)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.output, t.it.ExitCode, t.it.State = output, &code, berth.StateSucceeded
		if code != 0 {
			t.it.State, t.it.Diagnosis = berth.StateFailed, &berth.Diagnosis{Cause: berth.CauseExitedNonZero, Summary: fmt.Sprintf("It ended with exit code %d.", code)}
		}
		if t.cancelled {
			t.it.State = berth.StateCancelled
		}
		close(t.ended)
	}()
	return t.now(), nil
}

func (t *task) now() berth.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.it
}

func (c *cluster) of(id string) *task {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *cluster) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return func(yield func(berth.Task, error) bool) {
		t := c.of(id)
		if !yield(t.now(), nil) {
			return
		}
		select {
		case <-t.ended:
			yield(t.now(), nil)
		case <-ctx.Done():
			yield(berth.Task{}, ctx.Err())
		}
	}
}

func (c *cluster) TaskLogs(_ context.Context, id string, _ berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		yield(berth.LogChunk{Data: []byte(c.of(id).output)}, nil)
	}
}

func (c *cluster) Tasks(_ context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var page berth.TaskPage
	for _, t := range c.byID {
		if now := t.now(); now.Spec.Labels[berth.LabelRun] == q.Labels[berth.LabelRun] && slices.Contains(q.States, now.State) {
			page.Tasks = append(page.Tasks, now)
		}
	}
	return page, nil
}

func (c *cluster) CancelTask(_ context.Context, id string) (berth.Task, error) {
	t := c.of(id)
	t.mu.Lock()
	t.cancelled = true
	t.mu.Unlock()
	t.cancel()
	return t.now(), nil
}

// done is what was done so far, in the order of its text.
func (c *cluster) done() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.begun))
}

// memory is a Store of a test, which loses nothing when an Executor ends.
type memory struct {
	mu      sync.Mutex
	records map[string]berth.RunRecord
	calls   map[string]map[string]berth.RunCall
	cache   map[string]berth.CachedCall // by owner and digest
	failing int                         // commits that fail
	commits int
}

func newMemory() *memory {
	return &memory{records: map[string]berth.RunRecord{}, calls: map[string]map[string]berth.RunCall{}, cache: map[string]berth.CachedCall{}}
}

func (m *memory) CachedCall(_ context.Context, owner, digest string) (berth.CachedCall, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cache[owner+" "+digest]
	if !ok {
		return c, berth.NoSuchCachedCall(digest)
	}
	return c, nil
}

func (m *memory) PutCachedCall(_ context.Context, c *berth.CachedCall) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache[c.Owner+" "+c.Digest] = *c
	return nil
}

func (m *memory) Run(_ context.Context, id string) (berth.Run, error) {
	r, err := m.RunRecord(context.Background(), id)
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Run.Calls = map[berth.CallState]int{}
	for _, c := range m.calls[id] {
		r.Run.Calls[c.State]++
	}
	return r.Run, err
}

func (m *memory) RunRecord(_ context.Context, id string) (berth.RunRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[id]
	if !ok {
		return r, berth.NoSuchRun(id)
	}
	return r, nil
}

func (m *memory) CommitRun(_ context.Context, _ berth.Lease, id string, changed *berth.Run, calls []berth.RunCall) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits++
	if m.failing > 0 {
		m.failing--
		return berth.Errorf(berth.CodeExhausted, "the disk is full")
	}
	if changed != nil {
		r := m.records[id]
		r.Run = *changed
		m.records[id] = r
	}
	for _, c := range calls {
		if m.calls[id] == nil {
			m.calls[id] = map[string]berth.RunCall{}
		}
		m.calls[id][c.Key] = c
	}
	return nil
}

func (m *memory) LiveRuns(context.Context, string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, r := range m.records {
		if !r.Run.State.Terminal() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (m *memory) RunCalls(_ context.Context, id string, after int64, limit int) ([]berth.RunCall, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []berth.RunCall
	for _, c := range m.calls[id] {
		if c.Seq > after {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b berth.RunCall) int { return int(a.Seq - b.Seq) })
	return all[:min(len(all), limit)], nil
}

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
	e := New(m, c, nil, slog.New(slog.DiscardHandler))
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
		e := New(m, c, nil, slog.New(slog.DiscardHandler))
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
