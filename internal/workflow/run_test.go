package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// hostFunc is a Host of a test, which notes what it is asked for.
type hostFunc func(ctx context.Context, c Call) (json.RawMessage, *berth.CallFailure, error)

// notes are the records of calls that a host has done.
type notes struct {
	mu    sync.Mutex
	do    hostFunc
	done  map[string]Record
	asked []string // keys
}

func noting(do hostFunc) *notes { return &notes{do: do, done: map[string]Record{}} }

func (n *notes) Do(ctx context.Context, c Call) (json.RawMessage, *berth.CallFailure, error) {
	n.mu.Lock()
	n.asked = append(n.asked, c.Key)
	n.mu.Unlock()
	value, failure, err := n.do(ctx, c)
	if err == nil {
		n.mu.Lock()
		n.done[c.Key] = Record{c.Digest, value, failure}
		n.mu.Unlock()
	}
	return value, failure, err
}

// counting is a host whose functions do what a test can tell: count gives the
// length of its part, merge the sum of its counts, and a plain task its image.
func counting(_ context.Context, c Call) (json.RawMessage, *berth.CallFailure, error) {
	switch {
	case c.Kind == KindNow:
		return json.RawMessage(`"2026-03-01T10:00:00Z"`), nil, nil
	case c.Kind == KindSleep:
		return json.RawMessage("null"), nil, nil
	case c.Kind == KindRun:
		if c.Image == "failing" {
			code := 3
			return nil, &berth.CallFailure{Message: "exit code 3", ExitCode: &code, Task: "t1"}, nil
		}
		text, err := json.Marshal(map[string]any{"output": c.Image + " " + strings.Join(c.Args, " "), "exit_code": 0})
		return text, nil, err
	case c.Function == "count":
		var part string
		err := json.Unmarshal(c.Arguments["part"], &part)
		return json.RawMessage(fmt.Sprint(len(part))), nil, err
	}
	var counts []int
	if err := json.Unmarshal(c.Arguments["counts"], &counts); err != nil {
		return nil, nil, err
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return json.RawMessage(fmt.Sprint(sum)), nil, nil
}

func runner(t testing.TB, host Host, text string) *Runner {
	t.Helper()
	program, err := Load(files(map[string]string{"main.star": text, "lib.star": "def helper(part):\n    return package(\"text\").count(part = part)\n"}), "main.star")
	if err != nil {
		t.Fatal(err)
	}
	return &Runner{Program: program, Packages: packages, Host: host}
}

func execute(t testing.TB, do hostFunc, text string) (string, error) {
	t.Helper()
	value, err := runner(t, noting(do), text).Run(t.Context())
	return string(value), err
}

func TestRun(t *testing.T) {
	tests := map[string]struct{ program, want string }{
		"a call waits and is its value": {`
text = package("text", "1.0.0")
def main():
    return text.count(part = "abc") + 1
`, "4"},
		"map runs over lists, and what is not taken apart is the same each time": {`
text = package("text")
def main():
    counts = text.count.map(part = ["a", "bb", "ccc"], words = ["x"], max_parallel = 2)
    return text.merge(counts = counts)
`, "6"},
		"a list of lists where the function takes a list": {`
def main():
    return package("text").merge.map(counts = [[1, 2], [3]])
`, "[3,3]"},
		"lists at the same pace": {`
def main():
    return [r["output"] for r in run.map(image = ["a", "b"], args = [["1"], ["2"]])]
`, `["a 1","b 2"]`},
		"futures are arguments of other futures, also in lists": {`
text = package("text")
def main():
    a = text.count.submit(part = "abc")
    b = text.count.submit(part = "de")
    return text.merge.submit(counts = [a, b, 10])
`, "15"},
		"gather": {`
text = package("text")
def main():
    return gather([text.count.submit(part = "x" * n) for n in range(1, 4)])
`, "[1,2,3]"},
		"a failure as a value": {`
def main():
    o = try_call(run, "failing")
    p = try_call(run.submit("busybox").result)
    return [o.ok, o.error, o.exit_code, p.ok, p.value["exit_code"]]
`, `[false,"exit code 3",3,true,0]`},
		"loops, conditions, functions of other files": {`
load("lib.star", "helper")
def main():
    total = 0
    while total < 7:
        for n in [1, 2]:
            total += helper("x" * n)
    return {"b": total, "a": None}
`, `{"a":null,"b":9}`},
		"the time and pauses come from the host": {`
def main():
    sleep("1h")
    sleep(2.5)
    return now()
`, `"2026-03-01T10:00:00Z"`},
		"modules of Starlark": {`
def main():
    return json.decode(json.encode({"x": math.floor(2.5)}))
`, `{"x":2}`},
		"what a value is changed to concerns nobody else": {`
def main():
    f = run.submit("busybox")
    f.result()["output"] = "changed"
    return f.result()["output"]
`, `"busybox "`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := execute(t, counting, tt.program); err != nil || got != tt.want {
				t.Errorf("%s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestProgramsThatFail(t *testing.T) {
	tests := map[string]struct{ body, want string }{
		"a call that fails":             {`run("failing")`, "main.star:4:15: in main\nrun failed: exit code 3"},
		"deeper":                        {`inner(1)`, "main.star:4:17: in main\nmain.star:7:16: in inner\nrun failed: exit code 3"},
		"fail":                          {`fail("so it is")`, "main.star:4:16: in main\nfail: so it is"},
		"an index":                      {`[1][2]`, "main.star:4:15: in main\nlist index 2 out of range"},
		"a future as text":              {`str(text.count.submit(part = "x"))`, "a future of text.count was made a text: its value is .result()"},
		"a future printed":              {`print(text.count.submit(part = "x"))`, "was made a text"},
		"a future formatted":            {`"%s" % text.count.submit(part = "x")`, "was made a text"},
		"a future as a condition":       {`1 if text.count.submit(part = "x") else 2`, "was asked whether it is true"},
		"a future as a key":             {`{text.count.submit(part = "x"): 1}`, "can't be the key of a dict"},
		"futures compared":              {`text.count.submit(part = "x") == text.count.submit(part = "x")`, "was compared"},
		"a future of a call that waits": {`text.count(part = text.count.submit(part = "x"))`, "text.count waits and takes values: use text.count.submit"},
		"a future within an argument":   {`text.merge(counts = [text.count.submit(part = "x")])[0]`, "unhandled index operation int[int]"},
		"a dependency that failed":      {`text.merge.submit(counts = [run.submit("failing")]).result()`, "text.merge failed: it was not run, as what it needs failed: run failed: exit code 3"},
		"a dependency of another type":  {`text.merge.submit(counts = [run.submit("busybox")]).result()`, "text.merge failed: argument \"counts[0]\": want an integer"},
		"an argument of another type":   {`text.count(part = 3)`, "main.star:4:22: in main\nargument \"part\": want the path of a File, have 3"},
		"no such argument":              {`text.count(prat = 3)`, "text.count has no argument prat; did you mean part?"},
		"no such function":              {`text.cuont(part = 3)`, "did you mean count?"},
		"a bad option":                  {`text.count(part = "x", cpu = [])`, "cpu is CPUs, such as 2 or \"500m\", have []"},
		"lists of different lengths":    {`run.map(image = ["a", "b"], args = [["1"]])`, "args has 1 elements, image has 2"},
		"no list":                       {`run.map("a", ["1"])`, "run.map is given no list"},
		"a value that contains itself":  {`itself()`, "nested more than 100 deep, or contains itself"},
		"a function as a value":         {`text.count(part = main)`, "a function is no value that a task can be given"},
		"too much":                      {`"x" * (1 << 21)`, "the value of main: it takes 2097154 bytes, and at most 1 MiB are possible"},
		"a loop without an end":         {`forever()`, "the program took more than 1000000 steps: is there a loop without an end?"},
		"more calls than may be":        {`[run.submit("busybox") for i in range(200)]`, "the program makes more than 100 calls"},
		"a name of nothing":             {`run(image = "UPPER")`, "lower case"},
		"a pause that is none":          {`sleep("soon")`, "sleep takes seconds, or a duration such as \"10m\", have \"soon\""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := runner(t, noting(counting), `
text = package("text")
def main():
    return `+tt.body+`

def inner(n):
    return [run("failing") for i in range(n)]

def itself():
    x = []
    x.append(x)
    return text.merge(counts = x)

def forever():
    while True:
        pass
`)
			r.Limits = Limits{Steps: 1e6, Calls: 100}
			value, err := r.Run(t.Context())
			var failed *berth.RunError
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s, %v", value, err)
			}
		})
	}
}

func TestArgumentsOfMain(t *testing.T) {
	r := runner(t, noting(counting), "def main(path, n = 2, *, last = None):\n    return [path, n, last]\n")
	for given, want := range map[string]string{
		`{"path": "x", "last": [1]}`: `["x",2,[1]]`,
		`{}`:                         "main is called without path: a run takes NAME=VALUE",
		`{"path": 1, "lst": 2}`:      "main has no argument lst; did you mean last?",
	} {
		r.Arguments = nil
		if err := json.Unmarshal([]byte(given), &r.Arguments); err != nil {
			t.Fatal(err)
		}
		value, err := r.Run(t.Context())
		if err != nil {
			value = json.RawMessage(err.Error())
		}
		if string(value) != want {
			t.Errorf("%s: %s, want %s", given, value, want)
		}
	}
}

// What is submitted runs at the same time, and what map bounds does not.
func TestCallsAtTheSameTime(t *testing.T) {
	var now, most atomic.Int32
	both := make(chan struct{}, 2)
	do := func(ctx context.Context, c Call) (json.RawMessage, *berth.CallFailure, error) {
		defer now.Add(-1)
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		if c.Function == "merge" { // ends when the other is there too
			both <- struct{}{}
			for len(both) < 2 {
				select {
				case <-ctx.Done():
					return nil, nil, ctx.Err()
				case <-time.After(time.Millisecond):
				}
			}
		}
		return counting(ctx, c)
	}
	if got, err := execute(t, do, `
text = package("text")
def main():
    return gather([text.merge.submit(counts = [i]) for i in range(2)])
`); err != nil || got != "[0,1]" {
		t.Errorf("%s, %v", got, err)
	}
	most.Store(0)
	if got, err := execute(t, do, `
text = package("text")
def main():
    return len(text.count.map(part = ["x"] * 50, max_parallel = 3))
`); err != nil || got != "50" || most.Load() > 3 {
		t.Errorf("%s, %v, %d at the same time", got, err, most.Load())
	}
}

func TestCallsThatNobodyWaitsFor(t *testing.T) {
	n := noting(counting)
	value, err := runner(t, n, "def main():\n    run.submit(\"busybox\")\n    return 1\n").Run(t.Context())
	if err != nil || string(value) != "1" || len(n.done) != 1 {
		t.Errorf("%s, %v, %d calls", value, err, len(n.done))
	}
	if _, err := execute(t, counting, "def main():\n    run.submit(\"failing\")\n    return 1\n"); err == nil || !strings.Contains(err.Error(), "run failed: exit code 3") {
		t.Errorf("one that failed is not told: %v", err)
	}
}

func TestOnError(t *testing.T) {
	for how, want := range map[berth.OnError]string{berth.OnErrorFinish: "ended", berth.OnErrorCancel: "cancelled"} {
		var other atomic.Value
		begun := make(chan struct{})
		failed := make(chan struct{})
		n := noting(func(ctx context.Context, c Call) (json.RawMessage, *berth.CallFailure, error) {
			if c.Image == "failing" {
				<-begun
				defer close(failed)
				return counting(ctx, c)
			}
			close(begun)
			<-failed
			if how == berth.OnErrorCancel {
				<-ctx.Done()
				other.Store("cancelled")
				return nil, nil, ctx.Err()
			}
			other.Store("ended")
			return counting(ctx, c)
		})
		r := runner(t, n, "def main():\n    run.submit(\"busybox\")\n    run(\"failing\")\n")
		r.OnError = how
		_, err := r.Run(t.Context())
		var wrong *berth.RunError
		if !errors.As(err, &wrong) || other.Load() != want {
			t.Errorf("%s: %v, the other call %v", how, err, other.Load())
		}
	}
}

// sweep has calls of each kind, at places that only differ by how often.
const sweep = `
load("lib.star", "helper")
text = package("text")

def part(n):
    return text.count(part = "x" * n)

def main():
    begun = now()
    counts = text.count.map(part = ["a", "bb"]) + [part(n) for n in range(1, 4)]
    later = text.merge.submit(counts = counts)
    outcome = try_call(run, "failing")
    sleep(1)
    total = text.merge.submit(counts = [later, helper("abc")])
    return {"begun": begun, "total": total.result(), "ok": outcome.ok}
`

const swept = `{"begun":"2026-03-01T10:00:00Z","ok":false,"total":12}`

func TestReplayCallsNothingAgain(t *testing.T) {
	first := noting(counting)
	value, err := runner(t, first, sweep).Run(t.Context())
	if err != nil || string(value) != swept {
		t.Fatalf("%s, %v", value, err)
	}
	again := runner(t, noting(func(_ context.Context, c Call) (json.RawMessage, *berth.CallFailure, error) {
		return nil, nil, fmt.Errorf("%s is called again", c.Key)
	}), sweep)
	again.History = first.done
	if value, err := again.Run(t.Context()); err != nil || string(value) != swept {
		t.Errorf("%s, %v", value, err)
	}
	slices.Sort(first.asked)
	if len(slices.Compact(slices.Clone(first.asked))) != len(first.asked) {
		t.Errorf("keys are there twice: %q", first.asked)
	}
	for _, key := range []string{"main:now#1", "main/part:text.count#3", "main/lib.star.helper:text.count#1", "main:text.merge#2"} {
		if _, ok := first.done[key]; !ok {
			t.Errorf("no call has the key %s: %q", key, first.asked)
		}
	}
}

// A control plane that dies after each number of calls: what ended stays, what
// had not ended is asked for again, and the result is the same.
func TestARunThatIsResumedAfterEachCall(t *testing.T) {
	whole := noting(counting)
	if _, err := runner(t, whole, sweep).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the control plane is gone")
	for stop := range len(whole.done) + 1 {
		var begun atomic.Int32
		ended := map[string]Record{}
		for try := 0; ; try++ {
			n := noting(func(ctx context.Context, c Call) (json.RawMessage, *berth.CallFailure, error) {
				if try == 0 && int(begun.Add(1)) > stop {
					return nil, nil, gone
				}
				return counting(ctx, c)
			})
			r := runner(t, n, sweep)
			r.History = ended
			value, err := r.Run(t.Context())
			for key, record := range n.done {
				if _, twice := ended[key]; twice {
					t.Fatalf("after %d: %s is called again", stop, key)
				}
				ended[key] = record
			}
			if err == nil {
				if string(value) != swept || len(ended) != len(whole.done) {
					t.Fatalf("after %d: %s, %d calls", stop, value, len(ended))
				}
				break
			}
			if !errors.Is(err, gone) || try > 0 {
				t.Fatalf("after %d: %v", stop, err)
			}
		}
	}
}

func TestAnEditedProgram(t *testing.T) {
	first := noting(counting)
	if _, err := runner(t, first, sweep).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	longer := runner(t, noting(counting), strings.Replace(sweep, `    return {`, "    total = text.merge.submit(counts = [later, later])\n    return {", 1))
	longer.History = first.done
	if value, err := longer.Run(t.Context()); err != nil || !strings.Contains(string(value), `"total":18`) {
		t.Errorf("%s, %v", value, err)
	}
	other := runner(t, noting(counting), strings.Replace(sweep, `["a", "bb"]`, `["a", "bbb"]`, 1))
	other.History = first.done
	_, err := other.Run(t.Context())
	var diverged *Diverged
	if !errors.As(err, &diverged) || diverged.Key != "main:text.count#2" || !strings.HasPrefix(diverged.At, "main.star:10:") {
		t.Errorf("%v", err)
	}
}

func TestTroubleOfTheHostIsNoFailureOfTheProgram(t *testing.T) {
	away := errors.New("the store is away")
	for _, program := range []string{`run("a")`, `run.submit("a")`, `try_call(run, "a")`, `gather([run.submit("a")])`, `run.map(["a"])`, `now()`, `text.merge.submit(counts = run.submit("a"))`} {
		_, err := execute(t, func(context.Context, Call) (json.RawMessage, *berth.CallFailure, error) { return nil, nil, away }, "text = package(\"text\")\ndef main():\n    "+program+"\n")
		var failed *berth.RunError
		if !errors.Is(err, away) || errors.As(err, &failed) {
			t.Errorf("%s: %v", program, err)
		}
	}
}

func TestTheTimeThatARunMayTake(t *testing.T) {
	waiting := noting(func(ctx context.Context, _ Call) (json.RawMessage, *berth.CallFailure, error) {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	})
	for _, body := range []string{"run(\"busybox\")", "[0 for i in range(1 << 40)]"} {
		r := runner(t, waiting, "def main():\n    "+body+"\n")
		r.Limits = Limits{Wall: 20 * time.Millisecond, Steps: 1 << 62}
		_, err := r.Run(t.Context())
		var failed *berth.RunError
		if !errors.As(err, &failed) || !strings.Contains(failed.Message, "the program has taken longer than 20ms") {
			t.Errorf("%s: %v", body, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runner(t, waiting, "def main():\n    run(\"busybox\")\n").Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWhatAProgramPrints(t *testing.T) {
	r := runner(t, noting(counting), "def main():\n    print(\"a\", 1)\n")
	var printed []string
	r.Print = func(text string) { printed = append(printed, text) }
	if _, err := r.Run(t.Context()); err != nil || !slices.Equal(printed, []string{"a 1"}) {
		t.Errorf("%q, %v", printed, err)
	}
}

func BenchmarkReplay(b *testing.B) {
	text := "text = package(\"text\")\ndef main():\n    return len(text.count.map(part = [str(i) for i in range(10000)]))\n"
	first := noting(counting)
	if _, err := runner(b, first, text).Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	r := runner(b, first, text)
	r.History = first.done
	for b.Loop() {
		if _, err := r.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A log that a cluster did not give whole is no value to reckon with; a program
// that doesn't ask for it goes on.
func TestAnOutputThatIsNotWholeIsNotTakenForOne(t *testing.T) {
	gap := func(context.Context, Call) (json.RawMessage, *berth.CallFailure, error) {
		return json.RawMessage(`{"output":"4","incomplete":true,"exit_code":0,"task":"t1"}`), nil, nil
	}
	for expression, want := range map[string]string{
		`run("a")["exit_code"]`:                             "0",
		`run("a").get("output")`:                            `"4"`,
		`run("a")`:                                          `{"exit_code":0,"incomplete":true,"output":"4","task":"t1"}`,
		`run.submit("a").result()["task"]`:                  `"t1"`,
		`[r["incomplete"] for r in run.map(image = ["a"])]`: "[true]",
	} {
		if got, err := execute(t, gap, "def main():\n    return "+expression+"\n"); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", expression, got, err, want)
		}
	}
	for _, expression := range []string{`run("a")["output"]`, `run.submit("a").result()["output"]`, `run.map(image = ["a"])[0]["output"]`} {
		if got, err := execute(t, gap, "def main():\n    return int("+expression+")\n"); err == nil || !strings.Contains(err.Error(), "main.star:2:") || !strings.Contains(err.Error(), "the output of task t1 is not whole") {
			t.Errorf("%s is %s, %v", expression, got, err)
		}
	}
}

// All that a program can see that is not an argument or came from a task is the
// same in each run, in each process.
func TestNothingDiffersFromRunToRun(t *testing.T) {
	const program = `
def main():
    d = {k: len(k) for k in ["b", "a", "cc"]}
    d.update([("z", 1)])
    s = set([3, 1, 2]) | set([9, 0])
    return [hash("text"), str(d), d.keys(), list(s), dir(d), str(main), str([1, (2,), None]), sorted([2, 1], reverse = True), json.encode({"b": 1, "a": 2}), "%s" % d, repr(math.pi), type(main)]
`
	const want = `[3556653,"{\"b\": 1, \"a\": 1, \"cc\": 2, \"z\": 1}",["b","a","cc","z"],[3,1,2,9,0],["clear","get","items","keys","pop","popitem","setdefault","update","values"],"<function main>","[1, (2,), None]",[2,1],"{\"a\":2,\"b\":1}","{\"b\": 1, \"a\": 1, \"cc\": 2, \"z\": 1}","3.141592653589793","function"]`
	for range 3 {
		if got, err := execute(t, counting, program); err != nil || got != want {
			t.Fatalf("%s, %v", got, err)
		}
	}
	for _, name := range []string{"time.now()", "random.random()", "open(\"/etc/passwd\")", "os.environ", "id(main)", "input()", "globals()", "eval(\"1\")", "__import__(\"os\")"} {
		if value, err := execute(t, counting, "def main():\n    return "+name+"\n"); err == nil || !strings.Contains(err.Error(), "undefined") {
			t.Errorf("%s: %s, %v", name, value, err)
		}
	}
}
