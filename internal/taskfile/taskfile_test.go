package taskfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

const whole = `version: 1
name: count-words
image: docker.io/library/busybox:1.35
entrypoint: [sh, -c]
args: ["wc -w < /etc/services", 5, true]
env:
  GREETING: hello
  WORKERS: 4
  RATIO: 1.50
  DEBUG: true
  EMPTY: ""
user: 1000
on: site-a
cpu: 2
memory: 512Mi
gpu: 1
ephemeral_storage: 10Gi
timeout: 1h30m
retries: 2
idempotent: true
labels: {team: text, year: 2026}
pull: missing
`

func TestTheWholeOfIt(t *testing.T) {
	got, err := Parse("task.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := berth.TaskSpec{
		Name: "count-words", Image: "docker.io/library/busybox:1.35", Entrypoint: []string{"sh", "-c"}, Args: []string{"wc -w < /etc/services", "5", "true"},
		Env:  []berth.EnvVar{{Name: "GREETING", Value: "hello"}, {Name: "WORKERS", Value: "4"}, {Name: "RATIO", Value: "1.50"}, {Name: "DEBUG", Value: "true"}, {Name: "EMPTY"}},
		User: "1000", Infrastructure: "site-a", CPU: "2", Memory: "512Mi", GPU: 1, EphemeralStorage: "10Gi", Timeout: 90 * time.Minute,
		Retries: 2, Idempotent: true, Labels: map[string]string{"team": "text", "year": "2026"}, Pull: berth.PullMissing,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOtherWaysToWriteIt(t *testing.T) {
	got, err := Parse("task.yaml", []byte("env: [{name: A, value: b}, {name: C, value: 1}]\nentrypoint: /bin/true\nuser: 1000:1000\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := berth.TaskSpec{Entrypoint: []string{"/bin/true"}, User: "1000:1000", Env: []berth.EnvVar{{Name: "A", Value: "b"}, {Name: "C", Value: "1"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSteps(t *testing.T) {
	got, err := Parse("task.yaml", []byte(`image: docker.io/library/busybox:1.35
timeout: 1h
steps:
- name: fetch
  run: |
    echo one
    echo two
  env: {LEVEL: 3}
  timeout: 500ms
- command: [tar, -xf, data.tar]
  ignore_failure: true
- {run: ls}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []berth.Step{
		{Name: "fetch", Run: "echo one\necho two\n", Env: []berth.EnvVar{{Name: "LEVEL", Value: "3"}}, Timeout: 500 * time.Millisecond},
		{Name: "step-2", Command: []string{"tar", "-xf", "data.tar"}, IgnoreFailure: true},
		{Name: "step-3", Run: "ls"},
	}
	if diff := cmp.Diff(want, got.Steps); diff != "" {
		t.Error(diff)
	}
	if !got.Agent() {
		t.Error("no agent runs them")
	}
}

func TestMistakesSayWhereAndWhat(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "task.yaml:1:1: the file is empty; write at least image:"},
		{"no steps", "image: a\nsteps: []\n", "task.yaml:2:1: steps: there are none; write at least one"},
		{"steps and args", "image: a\nsteps: [{run: x}]\nargs: [a]\n", "task.yaml:3:1: args: is for a task of one command, and this one has steps"},
		{"steps and entrypoint", "entrypoint: [sh]\nsteps: [{run: x}]\n", "task.yaml:1:1: entrypoint: is for a task of one command"},
		{"a step with both", "steps:\n- run: x\n  command: [y]\n", "task.yaml:3:3: steps[0].command: a step is either run, a script, or command; keep one"},
		{"a step with neither", "steps:\n- name: x\n", "task.yaml:2:3: steps[0]: does nothing: write run, a script, or command, a list of words"},
		{"an empty script", "steps:\n- run: ''\n", "task.yaml:2:8: steps[0].run: the script is empty"},
		{"an empty command", "steps:\n- command: []\n", "task.yaml:2:3: steps[0].command: there is no word; write the program and its arguments"},
		{"a step's typo", "steps:\n- ron: x\n", "task.yaml:2:3: steps[0].ron: unknown field; did you mean run?"},
		{"a step's name", "steps:\n- {name: a/b, run: x}\n", `task.yaml:2:10: steps[0].name: name "a/b": use at most 63`},
		{"a name twice", "steps:\n- {name: a, run: x}\n- {name: a, run: x}\n", `task.yaml:3:10: steps[1].name: "a" is not usable: an earlier step is called so`},
		{"a name that another has by default", "steps:\n- {name: step-2, run: x}\n- {run: x}\n", "task.yaml:3:3: steps[1]: an earlier step is called step-2; give this one a name"},
		{"a step's timeout", "steps:\n- {run: x, timeout: 5}\n", "task.yaml:2:21: steps[0].timeout: want a duration with its unit"},
		{"a step's env", "steps:\n- run: x\n  env: {'a b': c}\n", `task.yaml:2:3: steps[0]: step-1: environment variable "a b"`},
		{"ignore_failure", "steps:\n- {run: x, ignore_failure: 1}\n", "task.yaml:2:28: steps[0].ignore_failure: want true or false"},
		{"a shell line as command", "steps:\n- command: echo hello\n", "task.yaml:2:12: steps[0].command: want a list of words, such as [echo, hello]"},
		{"a typo", "imgae: a\n", "task.yaml:1:1: imgae: unknown field; did you mean image?"},
		{"capitals", "image: UPPER/x\n", `task.yaml:1:8: image: image "UPPER/x": a repository name must be lower case`},
		{"a slash in the name", "name: a/b\n", `task.yaml:1:7: name: name "a/b"`},
		{"memory of nonsense", "memory: 10x\n", `task.yaml:1:9: memory: "10x": unknown unit "x"; write bytes with a unit`},
		{"no memory", "memory: 0\n", "task.yaml:1:9: memory: "},
		{"timeout without unit", "timeout: 90\n", "task.yaml:1:10: timeout: want a duration with its unit"},
		{"timeout too short", "timeout: 10ms\n", `task.yaml:1:10: timeout: "10ms" is not usable: use 1s to`},
		{"retries", "retries: -1\n", `task.yaml:1:10: retries: "-1" is not usable: use 0 to 1000`},
		{"retries is text", "retries: few\n", "task.yaml:1:10: retries: want a whole number, but this is a string"},
		{"idempotent", "idempotent: 1\n", "task.yaml:1:13: idempotent: want true or false, but this is a number"},
		{"pull", "pull: sometimes\n", `task.yaml:1:7: pull: "sometimes" is not usable: use missing, always or never`},
		{"user by name", "user: root\n", `task.yaml:1:7: user: user "root": write numbers`},
		{"a shell line", "args: echo hello\n", "task.yaml:1:7: args: want a list of words, such as [echo, hello]"},
		{"args is a map", "args: {a: b}\n", "task.yaml:1:7: args: want a list, but this is a map"},
		{"a list in args", "args: [[a]]\n", "task.yaml:1:8: args[0]: want a string or a number, but this is a list"},
		{"env without value", "env:\n  A:\n", `task.yaml:2:3: env.A: there is no value; write "" for an empty one`},
		{"env twice", "env:\n  A: a\n  A: b\n", "task.yaml:3:3: env.A: is there twice, first in line 2"},
		{"env twice in a list", "env:\n- {name: A, value: a}\n- {name: A, value: b}\n", "task.yaml:3:10: env[1].name: A is there twice"},
		{"env in a list without value", "env:\n- name: A\n", "task.yaml:2:3: env[0]: value is missing"},
		{"a name of env", "image: a\nenv: {\"a b\": c}\n", `task.yaml: environment variable "a b"`},
		{"our label", "labels: {berth.run/task: a}\n", "task.yaml:1:10: labels.berth.run/task: label"},
		{"version", "version: 2\n", `task.yaml:1:10: version: "2" is not usable: use 1 to 1`},
		{"a list", "- image: a\n", "task.yaml:1:1: want a map, but this is a list"},
	} {
		_, err := Parse("task.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
		} else if berth.CodeOf(err) != berth.CodeInvalid || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\n got %s %s\nwant %s", tt.name, berth.CodeOf(err), err, tt.want)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "task.yaml")
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	if spec, err := Load(path); err != nil || spec.Name != "count-words" {
		t.Errorf("%+v, %v", spec, err)
	}
	for _, bad := range []string{filepath.Join(path, "x"), filepath.Dir(path), "nowhere.yaml"} {
		if _, err := Load(bad); berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("image: a\nsteps: [{run: x, env: {A: b}}, {command: [y], timeout: 1s}]"))
	f.Add([]byte("env: [{name: A, value: a}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := Parse("task.yaml", data)
		if err == nil {
			if spec.Image != "" && spec.Validate() != nil {
				t.Errorf("accepted what can't run: %v", spec.Validate())
			}
			return
		}
		var e *berth.Error
		if !errors.As(err, &e) || e.Code != berth.CodeInvalid || !strings.HasPrefix(err.Error(), "task.yaml:") {
			t.Errorf("%T %v", err, err)
		}
	})
}
