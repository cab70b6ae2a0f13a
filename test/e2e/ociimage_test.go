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

// pushProgram pushes an image that holds one program as its entrypoint, said
// to be for an architecture, and returns its name.
func pushProgram(t *testing.T, image, architecture, path string) string {
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
	must(w.WriteHeader(&tar.Header{Name: filepath.Base(path), Mode: 0o755, Size: int64(len(program))}))
	_, err = w.Write(program)
	must(err)
	must(w.Close())
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	must(err)
	config, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: architecture, OS: "linux", Config: v1.Config{Entrypoint: []string{"/" + filepath.Base(path)}}})
	must(err)
	config, err = mutate.AppendLayers(config, content)
	must(err)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: config, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}})
	ref, err := name.ParseReference(image, name.Insecure)
	must(err)
	must(remote.WriteIndex(ref, index))
	return image
}
