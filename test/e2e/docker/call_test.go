//go:build e2e

package docker

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

// callable is a package that a build has made something for, with functions
// that do well and others that don't.
func callable(s *site) {
	s.t.Helper()
	dir := s.source("kit", map[string]string{
		"container.yml": `name: kit
version: 1.0.0
files: [run.sh]
install: [echo hello >/word]
entrypoint: {kind: task, exec: run.sh}
types: {Point: {properties: [{name: x, type: integer}, {name: y, type: real}]}}
actions:
  greet:
    command: {args: [greet]}
    input:
      - {name: name, type: string}
      - {name: times, type: integer, default: 1}
      - {name: tags, type: "string[]", optional: true}
      - {name: at, type: Point, optional: true}
    output: [{name: text, type: string}]
  exits: {command: {args: [exits]}, output: [{name: n, type: integer}]}
  silent: {command: {args: [silent]}, output: [{name: n, type: integer}]}
  mistyped: {command: {args: [mistyped]}, output: [{name: n, type: integer}]}
  killed: {command: {args: [killed]}, output: [{name: n, type: integer}]}
  waits: {command: {args: [waits]}, output: [{name: n, type: integer}]}
  keeps:
    command: {args: [keeps]}
    input: [{name: token, type: string, secret: true}, {name: wait, type: boolean, default: false}]
    output: [{name: n, type: integer}]
`,
		"run.sh": `#!/bin/sh
case $1 in
greet) echo "greeting $NAME" >&2; echo "text: '$(cat /word) $NAME $TIMES ${TAGS-none} ${TAGS_1-} ${AT_Y-nowhere}'" ;;
exits) echo "there is nothing to be done" >&2; exit 3 ;;
silent) ;;
mistyped) echo "n: five" ;;
killed) kill -9 $$ ;;
waits) trap 'exit 0' TERM; echo ready >&2; while :; do sleep 0.1; done ;;
keeps)
  echo ready >&2
  while [ "$WAIT" = true ] && [ ! -e /go ]; do sleep 0.1; done
  echo "n: ${#TOKEN}" ;;
esac
`,
	})
	s.must("package", "build", dir, "--base", "rootfs:base.tar", "--builder", "docker")
}

// call calls a function and returns the task as JSON tells it.
func (s *site) call(args ...string) (berth.Task, result) {
	s.t.Helper()
	r := s.berth(append([]string{"call", "-o", "json"}, args...)...)
	var task berth.Task
	if r.stdout != "" {
		if err := json.Unmarshal([]byte(r.stdout), &task); err != nil {
			s.t.Fatalf("%v\n%s", err, r.stdout)
		}
	}
	return task, r
}

func TestFunctionsOnAnEngine(t *testing.T) {
	s := newWorkshop(t)
	callable(s)
	t.Run("results", func(t *testing.T) {
		for _, test := range []struct {
			args []string
			want string
		}{
			{[]string{"name=Ada"}, "hello Ada 1 none  nowhere\n"},
			{[]string{"name=Ada & $(rm) \"Bob\"", "times=-3"}, "hello Ada & $(rm) \"Bob\" -3 none  nowhere\n"},
			{[]string{"name=x", `tags:=["a", "b c"]`, `at:={"x":1,"y":2.5}`}, "hello x 1 2 b c 2.5\n"},
		} {
			r := s.berth(append([]string{"call", "kit", "greet"}, test.args...)...)
			if r.code != 0 || r.stdout != test.want || !strings.Contains(r.stderr, "greeting ") {
				t.Errorf("%q: exit %d, %q, want %q\n%s", test.args, r.code, r.stdout, test.want, r.stderr)
			}
		}
	})
	t.Run("failures", func(t *testing.T) {
		for function, want := range map[string]struct {
			cause berth.Cause
			code  int
			says  string
		}{
			"exits":    {berth.CauseExitedNonZero, 3, "there is nothing to be done"},
			"silent":   {berth.CauseResultMissing, berth.ExitNone, "n"},
			"mistyped": {berth.CauseResultMalformed, berth.ExitNone, "five"},
			"killed":   {berth.CauseSignalled, 137, ""},
		} {
			task, r := s.call("kit", function)
			if task.State != berth.StateFailed || task.Diagnosis == nil || task.Diagnosis.Cause != want.cause || r.code != want.code {
				t.Errorf("%s: exit %d, %s, %+v", function, r.code, task.State, task.Diagnosis)
				continue
			}
			if task.Result != nil && string(task.Result) != "null" {
				t.Errorf("%s has the result %s", function, task.Result)
			}
			if !strings.Contains(r.stderr+task.Diagnosis.Summary, want.says) {
				t.Errorf("%s: nothing says %q: %+v\n%s", function, want.says, task.Diagnosis, r.stderr)
			}
		}
	})
	t.Run("package test", func(t *testing.T) {
		r := s.berth("package", "test", "kit", "--function", "exits,greet", "-o", "json")
		var all []struct{ Function, State, Why string }
		if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || r.code != 1 || len(all) != 2 {
			t.Fatalf("exit %d, %v: %s", r.code, err, r.stdout)
		}
		for _, one := range all {
			want := map[string]string{"exits": "failed", "greet": "skipped"}[one.Function]
			if one.State != want || one.Why == "" {
				t.Errorf("%+v, want %s", one, want)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		id := strings.TrimSpace(s.must("call", "--detach", "kit", "waits"))
		waitFor(t, "its output", 30*time.Second, func() bool { return strings.Contains(s.printed(id), "ready") })
		s.must("task", "cancel", id)
		waitFor(t, "it is cancelled", 30*time.Second, func() bool { return s.task(id).State == berth.StateCancelled })
	})
	s.clean()
}

func TestASecretOnAnEngineIsSeenByTheProgramAlone(t *testing.T) {
	s := newWorkshop(t)
	callable(s)
	const value = "s3cr3t-Zebra-7719"
	s.write("secrets.yml", "key: "+value+"\n")
	id := strings.TrimSpace(s.must("call", "--detach", "kit", "keeps", "token=secret:key", "wait=true"))
	waitFor(t, "its output", 30*time.Second, func() bool { return strings.Contains(s.printed(id), "ready") })
	list, err := shared.api.ContainerList(t.Context(), client.ContainerListOptions{Filters: client.Filters{}.Add("label", berth.LabelTask+"="+id)})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%d containers, %v", len(list.Items), err)
	}
	c, err := shared.api.ContainerInspect(t.Context(), list.Items[0].ID, client.ContainerInspectOptions{})
	if err != nil || bytes.Contains(c.Raw, []byte(value)) {
		t.Errorf("the container's description tells the secret, or %v", err)
	}
	content, err := goFile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shared.api.CopyToContainer(t.Context(), c.Container.ID, client.CopyToContainerOptions{DestinationPath: "/", Content: content}); err != nil {
		t.Fatal(err)
	}
	s.must("task", "wait", id)
	if task := s.task(id); task.State != berth.StateSucceeded || string(task.Result) != "17" {
		t.Errorf("the task is %s, its result %s: %+v", task.State, task.Result, task.Diagnosis)
	}
	for what, text := range map[string]string{
		"events": s.must("task", "events", id), "log": s.printed(id), "task": s.must("task", "get", id, "-o", "json"),
	} {
		if strings.Contains(text, value) {
			t.Errorf("the secret is in the %s", what)
		}
	}
	for _, file := range []string{"berth.db", "berth.db-wal"} {
		if data, err := os.ReadFile(filepath.Join(s.dir, ".berth", file)); err == nil && bytes.Contains(data, []byte(value)) {
			t.Errorf("the secret is in %s", file)
		}
	}
	for reference, says := range map[string]string{"secret:nokey": "nokey", "kube:login/pw": "kube:login/pw"} {
		task, r := s.call("kit", "keeps", "token="+reference)
		if r.code != berth.ExitNone || task.State == berth.StateSucceeded || !strings.Contains(r.stderr+r.stdout, says) {
			t.Errorf("%s: exit %d, %s\n%s", reference, r.code, task.State, r.stderr)
		}
	}
	s.clean()
}

// goFile is a tar with the file that the function waits for.
func goFile() (*bytes.Buffer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "go", Mode: 0o644}); err != nil {
		return nil, err
	}
	return &out, w.Close()
}
