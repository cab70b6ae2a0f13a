//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// programImage is an image that holds one program of this machine, and links
// to it; its architecture is what is said.
func programImage(t *testing.T, path, architecture string, config v1.Config, links ...string) v1.Image {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(path)
	must(err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.Base(path), Mode: 0o755, Size: int64(len(program))}))
	_, err = w.Write(program)
	must(err)
	for _, link := range links {
		must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: link, Linkname: "/" + filepath.Base(path)}))
	}
	must(w.Close())
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	must(err)
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: architecture, OS: "linux", Config: config})
	must(err)
	image, err = mutate.AppendLayers(image, content)
	must(err)
	return image
}

// entrypoint runs the program of an image that programImage makes.
func entrypoint(path string) v1.Config {
	return v1.Config{Entrypoint: []string{"/" + filepath.Base(path)}}
}

// pushProgram pushes an image that holds one program as its entrypoint, said
// to be for an architecture, and returns its name.
func pushProgram(t *testing.T, image, architecture, path string) string {
	t.Helper()
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add:        programImage(t, path, architecture, entrypoint(path)),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
	})
	ref, err := name.ParseReference(image, name.Insecure)
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}
