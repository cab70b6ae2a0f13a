//go:build e2e

package docker

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

// newWorkshop is a site that builds packages with the Engine, upon busybox.
func newWorkshop(t *testing.T) *site {
	t.Helper()
	s := newSite(t, shared)
	s.env = []string{"DOCKER_HOST=" + shared.host}
	tree, err := busyboxTree(nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(tree)
	if err != nil {
		t.Fatal(err)
	}
	s.write("base.tar", string(content))
	return s
}

// source writes the files of a package into a folder, which it returns.
func (s *site) source(name string, files map[string]string) string {
	s.t.Helper()
	for file, text := range files {
		path := filepath.Join(s.dir, name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	return name
}

func (s *site) packages() []berth.Package {
	s.t.Helper()
	var packages []berth.Package
	if err := json.Unmarshal([]byte(s.must("package", "list", "-o", "json")), &packages); err != nil {
		s.t.Fatal(err)
	}
	return packages
}

// noBuildIsLeft fails where the Engine still has a container of a build.
func (s *site) noBuildIsLeft() {
	s.t.Helper()
	list, err := s.engine.api.ContainerList(s.t.Context(), client.ContainerListOptions{All: true})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range list.Items {
		if c.Labels[berth.LabelManagedBy] == "" && strings.Contains(c.Command, "build-of-"+filepath.Base(s.dir)) {
			s.t.Errorf("a container of the build is left: %s", c.Command)
		}
	}
}

func TestAPackageThatInstallsIsBuiltByDocker(t *testing.T) {
	s := newWorkshop(t)
	dir := s.source("tool", map[string]string{
		"container.yml": `name: tool
version: 1.0.0
files: [run.sh, data]
environment: {GREETING: 'hello "you" & <all>'}
install:
  - echo before >/when; test ! -e /opt/wd/dat* && true build-of-` + filepath.Base(s.dir) + `
  - printf '%s' "$GREETING" >/greeting && cat ./data/in.txt >/after
unpack: ["id -u >/who"]
entrypoint: {kind: task, exec: run.sh}
actions:
  show:
    output: [{name: when, type: string}, {name: greeting, type: string}, {name: after, type: string}, {name: who, type: integer}]
`,
		"data/in.txt": "a file",
		"run.sh":      "#!/bin/sh\necho \"when: $(cat /when)\"\necho \"greeting: '$(cat /greeting)'\"\necho \"after: $(cat /after)\"\necho \"who: $(cat /who)\"\n",
	})
	r := s.berth("package", "build", dir, "--base", "rootfs:base.tar", "--builder", "docker")
	if r.code != 0 || !regexp.MustCompile(`^tool@sha256:[0-9a-f]{64}\n$`).MatchString(r.stdout) {
		t.Fatalf("exit %d, stdout %q\n%s", r.code, r.stdout, r.stderr)
	}
	for _, want := range []string{"install: echo before", "unpack: id -u >/who", "berth: built tool@1.0.0"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("nothing is said of %q:\n%s", want, r.stderr)
		}
	}
	s.noBuildIsLeft()
	got := s.must("call", "tool", "show")
	if want := `{"when":"before","greeting":"hello \"you\" & <all>","after":"a file","who":0}` + "\n"; got != want {
		t.Errorf("the result is %s, want %s", got, want)
	}
	s.clean()

	// Without a builder named, the install lines are why Docker is used.
	if again := s.berth("package", "build", dir, "--base", "rootfs:base.tar"); again.code != 0 || !strings.Contains(again.stderr, "install: echo before") {
		t.Errorf("exit %d\n%s", again.code, again.stderr)
	}
	// One of which nothing has to be run can be built by Docker too.
	plain := s.source("plain", map[string]string{
		"container.yml": "name: plain\nversion: 1.0.0\nfiles: [run.sh]\nentrypoint: {kind: task, exec: run.sh}\nactions: {f: {output: [{name: n, type: integer}]}}\n",
		"run.sh":        "#!/bin/sh\necho n: 4\n",
	})
	s.must("package", "build", plain, "--base", "rootfs:base.tar", "--builder", "docker")
	if got := s.must("call", "plain", "f"); got != "4\n" {
		t.Errorf("the result is %q", got)
	}
}

func TestALineThatFailsShowsItselfAndItsOutput(t *testing.T) {
	s := newWorkshop(t)
	tests := []struct {
		name, line string
		want       []string // of the error, after the progress
		never      []string
	}{
		{
			name: "with a reason", line: `echo "out of luck" >&2; exit 7`,
			want:  []string{"fails/container.yml:7: the command ended with exit code 7 (install: echo \"out of luck\" >&2; exit 7):\n", "\n  out of luck\n"},
			never: []string{"all is well"},
		},
		{
			name: "without a word", line: "exit 9",
			want: []string{"fails/container.yml:7: the command ended with exit code 9 (install: exit 9)\n"},
		},
		{
			name: "after much output", line: `yes "0123456789 much output" | head -n 20000; echo "the reason"; exit 3`,
			want: []string{"fails/container.yml:7: the command ended with exit code 3", "\n  the reason\n"},
		},
		{
			name: "with output that looks like a step", line: `echo "Step 1/9 : FROM nothing"; echo "Step 77/99 : RUN x"; exit 4`,
			want: []string{"fails/container.yml:7: the command ended with exit code 4", "Step 77/99"},
		},
		{
			name: "a program that isn't there", line: "nosuchprogram --install",
			want: []string{"fails/container.yml:7: the command ended with exit code 127 (install: nosuchprogram --install):\n", "not found"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			quoted, err := json.Marshal(test.line)
			if err != nil {
				t.Fatal(err)
			}
			dir := s.source("fails", map[string]string{
				"container.yml": "name: fails\nversion: 1.0.0\nentrypoint: {kind: task, exec: run.sh}\nfiles: [run.sh]\ninstall:\n  - echo all is well; true build-of-" + filepath.Base(s.dir) + "\n  - " + string(quoted) + "\nactions: {f: {}}\n",
				"run.sh":        "#!/bin/sh\n",
			})
			r := s.berth("package", "build", dir, "--base", "rootfs:base.tar")
			at := strings.LastIndex(r.stderr, "berth: fails/container.yml:")
			if r.code != berth.ExitNone || r.stdout != "" || at < 0 {
				t.Fatalf("exit %d, stdout %q\n%s", r.code, r.stdout, last(r.stderr, 2000))
			}
			for _, want := range test.want {
				if !strings.Contains(r.stderr[at:], want) {
					t.Errorf("the error lacks %q:\n%s", want, r.stderr[at:])
				}
			}
			for _, never := range test.never {
				if strings.Contains(r.stderr[at:], never) {
					t.Errorf("the error has %q, of another line:\n%s", never, r.stderr[at:])
				}
			}
		})
	}
	s.noBuildIsLeft()
	if packages := s.packages(); len(packages) != 0 {
		t.Errorf("%d packages were kept", len(packages))
	}
}

func last(text string, n int) string { return text[max(0, len(text)-n):] }

func TestABuildWithoutAnEngineSaysSo(t *testing.T) {
	s := newWorkshop(t)
	s.env = []string{"DOCKER_HOST=unix://" + filepath.Join(s.dir, "none.sock")}
	dir := s.source("tool", map[string]string{
		"container.yml": "name: tool\nversion: 1.0.0\nfiles: [run.sh]\ninstall: ['true']\nentrypoint: {kind: task, exec: run.sh}\nactions: {f: {}}\n",
		"run.sh":        "#!/bin/sh\n",
	})
	r := s.berth("package", "build", dir, "--base", "rootfs:base.tar")
	if r.code != berth.ExitNone || !strings.Contains(r.stderr, "container.yml:4") || !strings.Contains(r.stderr, "needs a Docker Engine") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}
