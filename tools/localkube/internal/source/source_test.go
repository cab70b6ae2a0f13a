package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func checkout(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	for _, folder := range []string{"tools/localkube/components", "a/b"} {
		if err := os.MkdirAll(filepath.Join(top, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(top, "tools/localkube/go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return top
}

func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestFindLooksUpwardsFromEachStart(t *testing.T) {
	top := checkout(t)
	for _, starts := range [][]string{{top}, {filepath.Join(top, "a/b")}, {t.TempDir(), filepath.Join(top, "tools/localkube")}} {
		tree, err := Find(environment(nil), starts...)
		if want := (Tree{filepath.Join(top, "tools/localkube"), filepath.Join(top, ".localkube")}); err != nil || tree != want {
			t.Errorf("%q: %+v, %v; want %+v", starts, tree, err, want)
		}
	}
}

func TestFindPrefersTheEnvironment(t *testing.T) {
	top, other := checkout(t), checkout(t)
	tree, err := Find(environment(map[string]string{VariableSource: filepath.Join(other, "tools/localkube"), VariableHome: "/somewhere"}), top)
	if want := (Tree{filepath.Join(other, "tools/localkube"), "/somewhere"}); err != nil || tree != want {
		t.Errorf("%+v, %v; want %+v", tree, err, want)
	}
	if tree, err := Find(environment(map[string]string{VariableSource: "/nowhere"}), top); err == nil || !strings.Contains(err.Error(), VariableSource) {
		t.Errorf("%+v, %v: a wrong %s is not silently ignored", tree, err, VariableSource)
	}
}

func TestFindOutsideACheckout(t *testing.T) {
	if tree, err := Find(environment(nil), t.TempDir(), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("%+v, %v", tree, err)
	}
}
