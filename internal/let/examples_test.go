package let_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/let"
	"github.com/berth-run/berth/internal/pack"
)

// sharedLog is what the program's stderr and what the capture leaves of its
// stdout are both written to, each from a goroutine of its own.
type sharedLog struct {
	mu  sync.Mutex
	log bytes.Buffer
}

func (l *sharedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

// call runs a function of an example package here, without an image, as the
// agent does it.
func call(t *testing.T, dir, program string, p *berth.Package, fn *berth.Function) (value string, exit int, failure *berth.ResultError) {
	t.Helper()
	given := map[string]json.RawMessage{}
	for _, in := range fn.Inputs {
		if in.Example != nil {
			given[in.Name] = in.Example
		}
	}
	args, _, err := p.Arguments(fn.Name, given)
	if err != nil {
		t.Fatal(err)
	}
	environ, err := let.Environ(fn, p.Types, args)
	if err != nil {
		t.Fatal(err)
	}
	input := filepath.Join(t.TempDir(), "input.json")
	if err := os.WriteFile(input, let.InputJSON(args), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &sharedLog{}
	capture := let.NewCapture(fn, log)
	cmd := exec.Command(program, fn.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, capture, log
	work := t.TempDir()
	cmd.Env = append(append(os.Environ(), environ...), "BERTH_INPUT="+input, "BERTH_WORK="+work)
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return "", ended.ExitCode(), nil
	} else if err != nil {
		t.Fatal(err)
	}
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
	output, err := let.Decode(capture.Captured())
	if err != nil {
		t.Fatal(err)
	}
	result, failure := p.Result(fn.Name, output)
	return strings.ReplaceAll(string(result), work, "BERTH_WORK"), 0, failure
}

func TestExamplesGiveTheirResults(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"add": "5", "subtract": "4", "multiply": "20", "divide": "3", "hello": `"Hello, Ada!"`,
		"split":      `["one two three","four five"]`,
		"split_file": `["BERTH_WORK/part-0.txt","BERTH_WORK/part-1.txt"]`,
		"count_file": `[{"word":"be","n":2},{"word":"to","n":2},{"word":"not","n":1},{"word":"or","n":1}]`,
		"count":      `[{"word":"be","n":2},{"word":"to","n":2},{"word":"not","n":1},{"word":"or","n":1}]`,
		"merge":      `{"counts":[{"word":"to","n":3},{"word":"be","n":2}],"total":5}`,
	}
	for _, name := range []string{"arithmetic-bash", "arithmetic-python", "arithmetic-go", "text", "hello-node"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", "..", "examples", name)
			d, err := pack.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Warnings) > 0 || d.NeedsRun() {
				t.Errorf("warnings %v; runs commands: %v", d.Warnings, d.NeedsRun())
			}
			program := programOf(t, dir, d)
			for i := range d.Package.Functions {
				fn := &d.Package.Functions[i]
				if got, exit, failure := call(t, dir, program, &d.Package, fn); failure != nil || exit != 0 || got != want[fn.Name] {
					t.Errorf("%s gave %s (%d, %v), want %s", fn.Name, got, exit, failure, want[fn.Name])
				}
			}
		})
	}
}

func TestFailingExampleFailsAsItSays(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "examples", "failing")
	d, err := pack.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	program := programOf(t, dir, d)
	for name, want := range map[string]struct {
		exit  int
		cause berth.Cause
	}{"exits": {3, ""}, "silent": {0, berth.CauseResultMissing}, "mistyped": {0, berth.CauseResultMalformed}} {
		_, exit, failure := call(t, dir, program, &d.Package, d.Package.Function(name))
		if exit != want.exit || (failure == nil) != (want.cause == "") || failure != nil && failure.Cause != want.cause {
			t.Errorf("%s: %d, %v", name, exit, failure)
		}
	}
}

// programOf is the program's absolute path. That of arithmetic-go is built
// first, as its README says.
func programOf(t *testing.T, dir string, d *pack.Definition) string {
	t.Helper()
	if strings.HasSuffix(dir, "-go") {
		program := filepath.Join(t.TempDir(), d.Package.Entrypoint.Exec)
		if out, err := exec.Command("go", "build", "-o", program, "./"+dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return program
	}
	program, err := filepath.Abs(filepath.Join(dir, d.Package.Entrypoint.Exec))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	interpreter := strings.TrimPrefix(first, "#!/usr/bin/env ")
	if _, err := exec.LookPath(interpreter); err != nil {
		t.Skipf("there is no %s here", interpreter)
	}
	return program
}
