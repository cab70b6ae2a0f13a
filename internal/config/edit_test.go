package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// folder makes a folder with a kubeconfig and, unless it is "", an infra.yml.
func folder(t *testing.T, text string) (path, kubeconfig string) {
	t.Helper()
	dir := t.TempDir()
	path, kubeconfig = filepath.Join(dir, "infra.yml"), filepath.Join(dir, "kubeconfig")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(kubeconfig, []byte("kind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, kubeconfig
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const entryB = `  b:
    kind: kube
    namespace: work
    credentials:
      mechanism: config
      path: ./kubeconfig
      context: ctx
`

func TestAdd(t *testing.T) {
	for _, tt := range []struct{ name, before, after string }{
		{"no file", "", "infrastructures:\n" + entryB},
		{"only a comment", "# mine\n", "# mine\ninfrastructures:\n" + entryB},
		{"no list", "version: 1 # first", "version: 1 # first\ninfrastructures:\n" + entryB},
		{"empty list", "infrastructures: # none yet\n# more\n", "infrastructures: # none yet\n" + entryB + "# more\n"},
		{"empty list in brackets", "locations: {}\nversion: 1\n", "locations:\n" + entryB + "version: 1\n"},
		{
			"after the last one",
			"# top\ninfrastructures:\n  # about a\n  a:\n    kind: kube # really\n    credentials: {mechanism: in-cluster}\n    # inside a\n\n# about default\ndefault: a\n",
			"# top\ninfrastructures:\n  # about a\n  a:\n    kind: kube # really\n    credentials: {mechanism: in-cluster}\n    # inside a\n" + entryB + "\n# about default\ndefault: a\n",
		},
		{
			"no line end at the end",
			"infrastructures:\n  a: {kind: kube, credentials: {mechanism: in-cluster}}",
			"infrastructures:\n  a: {kind: kube, credentials: {mechanism: in-cluster}}\n" + entryB,
		},
		{
			"other indentation",
			"infrastructures:\n    a:\n        kind: kube\n        credentials: {mechanism: in-cluster}\n",
			"infrastructures:\n    a:\n        kind: kube\n        credentials: {mechanism: in-cluster}\n    b:\n        kind: kube\n        namespace: work\n        credentials:\n            mechanism: config\n            path: ./kubeconfig\n            context: ctx\n",
		},
		{
			"after a text over several lines",
			"infrastructures:\n  a:\n    kind: kube\n    credentials:\n      mechanism: config\n      content: |\n        # not a comment\n        kind: Config\n\n",
			"infrastructures:\n  a:\n    kind: kube\n    credentials:\n      mechanism: config\n      content: |\n        # not a comment\n        kind: Config\n" + entryB + "\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, kubeconfig := folder(t, tt.before)
			err := Add(path, berth.InfrastructureSource{Name: "b", Kubeconfig: kubeconfig, Namespace: "work", Context: "ctx"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.after, content(t, path)); diff != "" {
				t.Error(diff)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			want := os.FileMode(0o640)
			if tt.before == "" {
				want = 0o600
			}
			if info.Mode().Perm() != want {
				t.Errorf("mode is %v, want %v", info.Mode().Perm(), want)
			}
			if _, err := Load(path); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAddRefuses(t *testing.T) {
	const a = "infrastructures:\n  a: {kind: kube, credentials: {mechanism: in-cluster}}\n"
	for _, tt := range []struct {
		name, before, add, kubeconfig string
		code                          berth.ErrorCode
	}{
		{name: "a taken name", before: a, add: "a", code: berth.CodeConflict},
		{name: "a name with a slash", before: a, add: "x/y", code: berth.CodeInvalid},
		{name: "a missing kubeconfig", before: a, add: "b", kubeconfig: "/nowhere/kubeconfig", code: berth.CodeInvalid},
		{name: "a file with a mistake", before: "infrastructure: {}\n", add: "b", code: berth.CodeInvalid},
		{name: "a list in brackets", before: "infrastructures: {a: {kind: kube, credentials: {mechanism: in-cluster}}}\n", add: "b", code: berth.CodeInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, kubeconfig := folder(t, tt.before)
			if tt.kubeconfig != "" {
				kubeconfig = tt.kubeconfig
			}
			err := Add(path, berth.InfrastructureSource{Name: tt.add, Kubeconfig: kubeconfig})
			if berth.CodeOf(err) != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
			if got := content(t, path); got != tt.before {
				t.Errorf("the file was changed: %s", got)
			}
		})
	}
}

func TestAddTakesAnyNameAndPathLiterally(t *testing.T) {
	path, _ := folder(t, "")
	kubeconfig := filepath.Join(t.TempDir(), "a ${env:HOME} # \"file\"")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1", "null", "1.5", "0x1F", "1e3", "true", "a.b_c"} {
		if err := Add(path, berth.InfrastructureSource{Name: name, Kubeconfig: kubeconfig, Context: "a:b@c d"}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, infra := range file.Infrastructures {
		if infra.Credentials.Path != kubeconfig || infra.Credentials.Context != "a:b@c d" {
			t.Errorf("%s: %+v", infra.Name, infra.Credentials)
		}
	}
}

func TestRemoveLeavesAllElseAsItIs(t *testing.T) {
	const text = `# top
default: b   # gone with b
infrastructures:
  # about a
  a:
    kind: kube # really

    credentials: {mechanism: in-cluster}
    # inside a

  # about b
  "b":
    kind:   kube
    credentials:
      mechanism: config
      content: |
        kind: Config
    # inside b
  # about c

  c: {kind: kube, credentials: {mechanism: in-cluster}}   # last

# the end
`
	for _, tt := range []struct {
		remove string
		gone   []string
	}{
		{"a", []string{"  a:\n    kind: kube # really\n\n    credentials: {mechanism: in-cluster}\n    # inside a\n"}},
		{"b", []string{"default: b   # gone with b\n", "  \"b\":\n    kind:   kube\n    credentials:\n      mechanism: config\n      content: |\n        kind: Config\n    # inside b\n"}},
		{"c", []string{"  c: {kind: kube, credentials: {mechanism: in-cluster}}   # last\n"}},
	} {
		path, _ := folder(t, text)
		if err := Remove(path, tt.remove); err != nil {
			t.Errorf("%s: %v", tt.remove, err)
			continue
		}
		want := text
		for _, gone := range tt.gone {
			if !strings.Contains(want, gone) {
				t.Fatalf("%q is not there", gone)
			}
			want = strings.Replace(want, gone, "", 1)
		}
		if diff := cmp.Diff(want, content(t, path)); diff != "" {
			t.Errorf("without %s: %s", tt.remove, diff)
		}
	}
}

func TestRemoveTheLastAndAddAgain(t *testing.T) {
	path, kubeconfig := folder(t, "")
	source := berth.InfrastructureSource{Name: "b", Kubeconfig: kubeconfig, Namespace: "work", Context: "ctx"}
	for range 2 {
		if err := Add(path, source); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("infrastructures:\n"+entryB, content(t, path)); diff != "" {
			t.Error(diff)
		}
		if err := Remove(path, "b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := Remove(path, "b"); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "berth infra add") {
		t.Errorf("an empty list: %v", err)
	}
}

func TestEditsFollowLinks(t *testing.T) {
	path, kubeconfig := folder(t, "")
	real := filepath.Join(t.TempDir(), "real.yml")
	if err := os.WriteFile(real, []byte("infrastructures:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, path); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, berth.InfrastructureSource{Name: "b", Kubeconfig: kubeconfig}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if !strings.Contains(content(t, real), "b:") {
		t.Error("the file behind the link was not changed")
	}
}
