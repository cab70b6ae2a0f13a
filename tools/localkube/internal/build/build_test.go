package build

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestKeyChangesWithAllThatGoesIn(t *testing.T) {
	module := func(files ...string) fs.FS {
		tree := fstest.MapFS{"go.mod": {Data: []byte("module m\n")}}
		for _, name := range files {
			tree[name] = &fstest.MapFile{Data: []byte("package main\n")}
		}
		return tree
	}
	key := func(files fs.FS, p Program, version, architecture string) string {
		t.Helper()
		key, err := Key(files, p, version, architecture)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	plain := Program{Name: "p", Package: "."}
	first := key(module("main.go"), plain, "go1.26.0", "amd64")
	for name, same := range map[string]string{
		"the same again": key(module("main.go"), plain, "go1.26.0", "amd64"),
		"a test":         key(module("main.go", "main_test.go"), plain, "go1.26.0", "amd64"),
	} {
		if same != first {
			t.Errorf("%s changes the key", name)
		}
	}
	for name, other := range map[string]string{
		"another file":         key(module("main.go", "more.go"), plain, "go1.26.0", "amd64"),
		"a file's name":        key(module("other.go"), plain, "go1.26.0", "amd64"),
		"the toolchain":        key(module("main.go"), plain, "go1.26.1", "amd64"),
		"the architecture":     key(module("main.go"), plain, "go1.26.0", "arm64"),
		"the package":          key(module("main.go"), Program{Name: "p", Package: "./cmd"}, "go1.26.0", "amd64"),
		"a linker's variable":  key(module("main.go"), Program{Name: "p", Package: ".", LinkerVariables: []string{"a=b"}}, "go1.26.0", "amd64"),
		"another file's bytes": key(fstest.MapFS{"go.mod": {Data: []byte("module m\n")}, "main.go": {Data: []byte("package main \n")}}, plain, "go1.26.0", "amd64"),
	} {
		if other == first {
			t.Errorf("%s does not change the key", name)
		}
	}
}
