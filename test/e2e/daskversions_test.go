//go:build e2e

package e2e

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth"
)

// unpack puts what an image has in a folder into one of this machine.
func unpack(t *testing.T, archive, folder string) string {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := mutate.Extract(image)
	defer files.Close()
	to := t.TempDir()
	root, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for reader := tar.NewReader(files); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(to, folder)
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(filepath.Clean("/"+header.Name), "/")
		if !strings.HasPrefix(name, folder+"/") || header.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		file, err := root.Create(name)
		if err == nil {
			_, err = io.Copy(file, reader)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A cluster of PyPI's current Dask computes for a client of the same versions, as
// the page for users has it; one of other versions is told so before any work.
func TestDaskOfPyPIAsThePageSays(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	image, archive := daskImage(t, "pypi")
	c := s.createDask("analysis", image, 2, "--workers", "2", "--memory", "600Mi", "--head-memory", "800Mi", "--env", "BERTH_WORKER_THREADS=1")

	refused := s.berth("cluster", "connect", "analysis", "--python", debianPython)
	for _, says := range []string{"distributed of your " + debianPython + " is 2022.12.1", c.Head.Versions["distributed"], "--any-versions"} {
		if refused.code != berth.ExitNone || !strings.Contains(refused.stderr, says) {
			t.Errorf("other versions: exit %d, and not %q: %s", refused.code, says, refused.stderr)
		}
	}

	s.env = append(s.env, "PYTHONPATH="+filepath.Join(unpack(t, archive, "opt/dask"), "lib/python3.11/site-packages"))
	lines := s.start("cluster", "connect", "analysis", "--python", debianPython)
	waitForLines(t, lines)
	s.write("connect.py", lines.stdout.String())
	page, err := os.ReadFile("../../docs/dask.md")
	if err != nil {
		t.Fatal(err)
	}
	program := regexp.MustCompile("(?s)```python\n(from connect import client.*?)```").FindSubmatch(page)
	if program == nil {
		t.Fatal("docs/dask.md has no program")
	}
	if out := s.python(string(program[1])); !strings.Contains(out, "the mean of 3.2 GB of random numbers is 0.500") {
		t.Errorf("it printed %s", out)
	}
	s.must("cluster", "scale", "analysis", "3")
	s.must("cluster", "scale", "analysis", "1", "--wait", "--wait-timeout", "2m")
	s.must("cluster", "delete", "analysis")
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Workers with another Python are told apart from the head's, and named.
func TestDaskWorkersWithAnotherPython(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	image, _ := daskImage(t, "debian")
	other, _ := daskImage(t, "debian13")
	r := s.berth("cluster", "create", "dask", "--name", "mixed", "--software", image, "--pull", "never", "--head-memory", "500Mi",
		"--group", "same=1,memory=300Mi", "--group", "other=1,memory=400Mi,image="+other, "--wait-for", "2", "--wait-timeout", "90s")
	c := s.cluster("mixed")
	t.Logf("exit %d; %+v; %v", r.code, c.Groups, c.Warnings)
	if len(c.Warnings) == 0 || !strings.Contains(c.Warnings[0], "Python of the workers of group other is 3.13, of the head 3.11") {
		t.Errorf("warnings: %v", c.Warnings)
	}
	s.must("cluster", "delete", "mixed")
}
