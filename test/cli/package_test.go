package cli

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() {
	commands["rootfs"] = rootFS
	commands["large"] = large
}

// examples is where the packages are that come with Berth.
func examples() (string, error) { return filepath.Abs("../../examples") }

// rootfs FILE: writes the tar of a root filesystem that packages can be built
// upon, though not run: it has a shell in name only.
func rootFS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rootfs FILE")
	}
	file, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer file.Close()
	w := tar.NewWriter(file)
	ts.Check(w.WriteHeader(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}))
	ts.Check(w.WriteHeader(&tar.Header{Name: "bin/sh", Typeflag: tar.TypeReg, Mode: 0o755, Size: 2}))
	_, err = w.Write([]byte("sh"))
	ts.Check(err)
	ts.Check(w.Close())
}

// large VARIABLE KIB: the environment variable has a value of that size.
func large(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: large VARIABLE KIB")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Setenv(args[0], strings.Repeat("a", size<<10))
}
