//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// workflowRun is a run with its calls, as -o json tells it.
type workflowRun struct {
	berth.Run
	AllCalls []berth.RunCall `json:"allCalls"`
}

func (s *site) workflowRun(id string) workflowRun {
	s.t.Helper()
	var run workflowRun
	if err := json.Unmarshal([]byte(s.must("workflow", "get", id, "-o", "json")), &run); err != nil {
		s.t.Fatal(err)
	}
	return run
}

// newest is the run that was started last.
func (s *site) newest() workflowRun {
	s.t.Helper()
	var runs []berth.Run
	if err := json.Unmarshal([]byte(s.must("workflow", "list", "--limit", "1", "-o", "json")), &runs); err != nil || len(runs) != 1 {
		s.t.Fatalf("%v, %d runs", err, len(runs))
	}
	return s.workflowRun(runs[0].ID)
}

// example is the path of a workflow in examples/.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../examples/workflows", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Functions of a package, at the same time and then together.
func TestWorkflowThatCountsWords(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true, "")
	o.build("text")
	out := o.must("workflow", "run", example(t, "wordcount.star"), "words=to be or not to be that is the question", "parts=3", "least=2")
	if out != `{"counts":[{"n":2,"word":"be"},{"n":2,"word":"to"}],"total":4}`+"\n" {
		t.Errorf("%s", out)
	}
	run := o.newest()
	if run.State != berth.RunSucceeded || run.Calls[berth.CallSucceeded] != 5 || len(run.Packages) != 1 || !strings.HasPrefix(run.Packages[0].Digest, "sha256:") {
		t.Errorf("%+v", run)
	}
	for _, call := range run.AllCalls {
		if task := o.task(*call.Task); task.Spec.Labels[berth.LabelRun] != run.ID || task.Spec.Call.Package != "text" || task.Spec.Call.Digest != run.Packages[0].Digest {
			t.Errorf("%s: %+v", call.Key, task.Spec)
		}
	}
	graph := o.must("workflow", "graph", run.ID, "-o", "mermaid")
	if strings.Count(graph, "text.count #") != 3 || !strings.HasPrefix(graph, "flowchart TD\n") {
		t.Errorf("%s", graph)
	}
	tree := o.must("workflow", "get", run.ID)
	for _, want := range []string{"run " + run.ID + "  wordcount.star  succeeded", "\n  main\n", "✓ text.split #1  succeeded", "✓ text.count #3", "on here", "result: {"} {
		if !strings.Contains(tree, want) {
			t.Errorf("%q is not in\n%s", want, tree)
		}
	}
}

func TestWorkflowWhoseBranchFails(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.berth("workflow", "run", example(t, "failing.star"))
	if r.code != 0 || r.stdout != `{"missing":["east"],"sum":42}`+"\n" || !strings.Contains(r.stderr, "\neast failed: ExitedNonZero\n") {
		t.Errorf("exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	if logs := s.must("workflow", "logs", s.newest().ID); !strings.Contains(logs, "the instrument is off") || !strings.Contains(logs, "30") {
		t.Errorf("%s", logs)
	}
}

func TestWorkflowThatSweepsParameters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if out := s.must("workflow", "run", example(t, "sweep.star"), "at_once=10"); out != `{"score":0,"x":7,"y":3}`+"\n" {
		t.Errorf("%s", out)
	}
	if run := s.newest(); run.Calls[berth.CallSucceeded] != 200 {
		t.Errorf("%+v", run.Calls)
	}
}

// The data stays on its site, and the program goes there.
func TestWorkflowOfTwoInfrastructures(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	for folder, text := range map[string]string{s.share("texts"): "one two three\n", other.share("texts"): "four five\n"} {
		if err := os.MkdirAll(filepath.Join(folder, "texts"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "texts", "a.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.write("infra.yml", "infrastructures:\n"+entryOf("site-a", s.namespace, s.kubeconfig, "mount_dfs: pvc:texts\n")+entryOf("site-b", other.namespace, other.kubeconfig, "mount_dfs: pvc:texts\n"))
	if out := s.must("workflow", "run", example(t, "twosites.star")); out != `{"sites":{"site-a":3,"site-b":2},"total":5}`+"\n" {
		t.Errorf("%s", out)
	}
	places := map[string]string{}
	for _, call := range s.newest().AllCalls {
		places[*call.Label] = *call.Infrastructure
	}
	if places["count-site-a"] != "site-a" || places["count-site-b"] != "site-b" {
		t.Errorf("%v", places)
	}
}

// What failed is told with its place in the program and its task's diagnosis; an
// edited program goes on with what was done.
func TestWorkflowThatFailsIsToldOfAndResumed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const image = "image = \"" + busybox + "\"\n"
	file := s.write("flow.star", image+`
def part(word):
    return run(image, ["sh", "-c", word])["output"].strip()

def main(word):
    return [part("echo " + word), part("echo gone >&2; exit 4")]
`)
	r := s.berth("workflow", "run", file, "word=begun")
	if r.code != 1 || r.stdout != "" {
		t.Errorf("exit %d: %s", r.code, r.stdout)
	}
	for _, want := range []string{"Traceback (most recent call last):\n    flow.star:7:39: in main\n    flow.star:4:15: in part\n", "ExitedNonZero", "exit code 4", "berth task explain ", "berth workflow resume r-"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is not in\n%s", want, r.stderr)
		}
	}
	failed := s.newest()
	if failed.State != berth.RunFailed || failed.Error == nil || failed.Error.Call == nil || failed.Error.Call.Diagnosis.Cause != berth.CauseExitedNonZero {
		t.Fatalf("%+v", failed)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.write("flow.star", strings.Replace(string(text), "echo gone >&2; exit 4", "echo mended", 1))
	r = s.berth("workflow", "resume", failed.ID, "--with", file)
	if r.code != 0 || r.stdout != `["begun","mended"]`+"\n" {
		t.Errorf("exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	again := s.workflowRun(failed.ID)
	if !slices.ContainsFunc(again.AllCalls, func(c berth.RunCall) bool {
		return c.Key == "main/part:run#1" && *c.Task == *failed.AllCalls[0].Task && c.Generation == 0
	}) {
		t.Errorf("the first call was made again: %+v", again.AllCalls)
	}
	if r := s.berth("workflow", "resume", failed.ID); r.code != berth.ExitNone || !strings.Contains(r.stderr, "has succeeded: there is nothing to resume") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}

func TestWorkflowThatIsCancelledLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := s.write("flow.star", "def main():\n    run.map(image = \""+busybox+"\", args = [[\"sleep\", \"600\"], [\"sleep\", \"600\"]])\n")
	id := strings.TrimSpace(s.must("workflow", "run", "--detach", file))
	waiting := s.command(nil, "workflow", "run", file) // and one that somebody waits for
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "both runs' tasks to run", 60*time.Second, func() bool {
		n := 0
		for _, task := range s.tasks() {
			if task.State == berth.StateRunning {
				n++
			}
		}
		return n == 4
	})
	if r := s.berth("workflow", "cancel", id); r.code != 0 || !strings.Contains(r.stderr, "run "+id+" is cancelled") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	_ = waiting.Process.Signal(syscall.SIGINT)
	if _ = waiting.Wait(); waiting.ProcessState.ExitCode() != berth.ExitCancelled {
		t.Errorf("Ctrl-C: exit %d", waiting.ProcessState.ExitCode())
	}
	for _, task := range s.tasks() {
		if task.State != berth.StateCancelled {
			t.Errorf("%s is %s", task.ID, task.State)
		}
	}
	if run := s.workflowRun(id); run.State != berth.RunCancelled || run.Calls[berth.CallCancelled] != 2 {
		t.Errorf("%+v", run)
	}
}

// Each is one clear error, and nothing is created.
func TestWorkflowsThatCannotRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("lib.star", "load(\"circle.star\", \"x\")\ny = 1\n")
	for program, tt := range map[string]struct {
		text string
		args []string
		want string
	}{
		"circle.star":  {"load(\"lib.star\", \"y\")\nx = 2\ndef main():\n    pass\n", nil, "circle"},
		"unknown.star": {"text = package(\"txet\")\ndef main():\n    text.count(part = \"a\")\n", nil, "txet"},
		"missing.star": {"def main(words):\n    pass\n", nil, "main is called without words"},
		"other.star":   {"def main(words = 1):\n    pass\n", []string{"wrods=2"}, "main has no argument wrods; did you mean words?"},
		"random.star":  {"def main():\n    return random()\n", nil, "random"},
		"recurse.star": {"def f(n):\n    return f(n - 1)\ndef main():\n    return f(3)\n", nil, "f"},
		"strict.star":  {"def main(n):\n    pass\n", []string{"n:=x"}, "argument n:=x is not JSON"},
		"how.star":     {"def main():\n    pass\n", []string{"--on-error", "ignore"}, "finish"},
	} {
		file := s.write(program, tt.text)
		words := append([]string{"workflow", "run"}, tt.args...)
		if len(tt.args) > 0 && !strings.HasPrefix(tt.args[0], "-") {
			words = append([]string{"workflow", "run", file}, tt.args...)
		} else {
			words = append(words, file)
		}
		if r := s.berth(words...); r.code != berth.ExitNone && r.code != 1 || !strings.Contains(r.stderr, tt.want) || r.stdout != "" {
			t.Errorf("%s: exit %d, want %q in\n%s", program, r.code, tt.want, r.stderr)
		}
	}
	endless := s.write("endless.star", "def main():\n    n = 0\n    while True:\n        n += 1\n")
	if r := s.berth("workflow", "run", "--max-steps", "10000", endless); r.code != 1 || !strings.Contains(r.stderr, "more than 10000 steps") || !strings.Contains(r.stderr, "endless.star:") {
		t.Errorf("a loop without an end: exit %d\n%s", r.code, r.stderr)
	}
	waits := s.write("waits.star", "def main():\n    sleep(\"1h\")\n")
	if r := s.berth("workflow", "run", "--timeout", "300ms", waits); r.code != 1 || !strings.Contains(r.stderr, "longer than 300ms") {
		t.Errorf("one that takes too long: exit %d\n%s", r.code, r.stderr)
	}
	for _, words := range [][]string{{"workflow", "get", "r-none"}, {"workflow", "cancel", "r-none"}, {"workflow", "resume", "r-none"}, {"workflow", "logs", "r-none"}} {
		if r := s.berth(words...); r.code != berth.ExitNone || !strings.Contains(r.stderr, "there is no run r-none") {
			t.Errorf("%v: exit %d\n%s", words, r.code, r.stderr)
		}
	}
	if len(s.tasks()) != 0 || len(s.pods()) != 0 {
		t.Errorf("%d tasks and %d pods were made", len(s.tasks()), len(s.pods()))
	}
}
