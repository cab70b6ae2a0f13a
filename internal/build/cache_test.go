package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-run/berth/internal/registry"
)

// rootTar is a tar of a root filesystem with one file of so many bytes.
func rootTar(t *testing.T, size int) string {
	t.Helper()
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "bin/sh", Mode: 0o755, Size: int64(size)}), second(w.Write(content)), w.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func second(_ int, err error) error { return err }

func digestOf(t *testing.T, l v1.Layer) string {
	t.Helper()
	h, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func TestARootFilesystemIsCompressedOnceAndItsLayerIsTheSame(t *testing.T) {
	path, cache := rootTar(t, 100_000), t.TempDir()
	first, err := rootFSLayer(path, cache)
	if err != nil {
		t.Fatal(err)
	}
	again, err := rootFSLayer(path, cache)
	if err != nil {
		t.Fatal(err)
	}
	noted, ok := again.(*notedLayer)
	if !ok {
		t.Fatalf("the second build compressed anew: %T", again)
	}
	firstID, _ := first.DiffID()
	againID, _ := noted.DiffID()
	firstSize, _ := first.Size()
	againSize, _ := noted.Size()
	if digestOf(t, first) != digestOf(t, again) || firstID != againID || firstSize != againSize {
		t.Errorf("%v %v %d became %v %v %d", digestOf(t, first), firstID, firstSize, digestOf(t, again), againID, againSize)
	}
	// A registry that doesn't have it gets what the digest says.
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	server := httptest.NewServer(r)
	defer server.Close()
	repository, _ := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/base")
	if err := remote.WriteLayer(repository, again); err != nil {
		t.Error(err)
	}
	// Another file under the same name is another layer.
	other := rootTar(t, 100_001)
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	changed, err := rootFSLayer(path, cache)
	if err != nil || digestOf(t, changed) == digestOf(t, first) {
		t.Errorf("a changed root filesystem gave the layer of the old one (%v)", err)
	}
}

// halfway is a layer whose reading breaks off.
type halfway struct{ v1.Layer }

func (halfway) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("half"), broken{})), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection broke") }

func TestTheCacheHasALayerWholeOrNotAtAll(t *testing.T) {
	layer, err := rootFSLayer(rootTar(t, 1000), "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	read := func(l v1.Layer) ([]byte, error) {
		t.Helper()
		r, err := cachedLayer{l, dir}.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if closeErr := r.Close(); closeErr != nil {
			t.Fatal(closeErr)
		}
		return data, err
	}
	files := func() int {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if _, err := read(halfway{layer}); err == nil || files() != 0 {
		t.Fatalf("a reading that broke off left %d files (%v)", files(), err)
	}
	// Closed before the end, as by a build that is cancelled.
	r, err := cachedLayer{layer, dir}.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = r.Read(make([]byte, 10))
	if r.Close(); files() != 0 {
		t.Fatalf("a reading that was given up left %d files", files())
	}
	whole, err := read(layer)
	if err != nil || files() != 1 {
		t.Fatalf("%d files (%v)", files(), err)
	}
	if kept, err := read(halfway{layer}); err != nil || !bytes.Equal(kept, whole) {
		t.Errorf("the kept layer is another: %d bytes of %d (%v)", len(kept), len(whole), err)
	}
}
