package points

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPointsAreFoundInTheSources(t *testing.T) {
	names, err := Find("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"engine.before-create", "engine.committed", "logs.all-sealed", "store.before-commit"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not among %v", name, names)
		}
	}
}

func TestAPointHasOnePlaceAndItsNameInIt(t *testing.T) {
	for body, want := range map[string]string{
		`crash.Point("a"); crash.Point("a")`: "as well",
		`name := "a"; crash.Point(name)`:     "has to be written",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte("package x\nfunc f() { "+body+" }\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if names, err := Find(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", body, names, err)
		}
	}
}
