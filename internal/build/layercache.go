package build

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// cachedImage keeps the layers of an image of a registry, as they are read, in
// files named by their digests. A file is there whole or not at all: a build
// that is killed, or two at once, leave no half of a layer behind.
type cachedImage struct {
	v1.Image
	dir string
}

func (i cachedImage) Layers() ([]v1.Layer, error) {
	layers, err := i.Image.Layers()
	for n := range layers {
		layers[n] = cachedLayer{layers[n], i.dir}
	}
	return layers, err
}

func (i cachedImage) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	layer, err := i.Image.LayerByDigest(h)
	return cachedLayer{layer, i.dir}, err
}

func (i cachedImage) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	layer, err := i.Image.LayerByDiffID(h)
	return cachedLayer{layer, i.dir}, err
}

type cachedLayer struct {
	v1.Layer
	dir string
}

func (l cachedLayer) Compressed() (io.ReadCloser, error) {
	digest, err := l.Digest()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(l.dir, digest.Algorithm+"-"+digest.Hex)
	if file, err := os.Open(path); err == nil {
		return file, nil
	}
	from, err := l.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	if to, err := os.CreateTemp(l.dir, "layer-*.part"); err == nil {
		return &keeping{from: from, to: to, path: path}, nil
	}
	return from, nil // a cache that can't be written is none
}

// keeping copies what is read into a file, which gets its name once all was.
type keeping struct {
	from io.ReadCloser
	to   *os.File
	path string
	all  bool
	bad  bool // the file, which the reader need not care about
}

func (k *keeping) Read(p []byte) (int, error) {
	n, err := k.from.Read(p)
	if _, writeErr := k.to.Write(p[:n]); writeErr != nil {
		k.bad = true
	}
	// A layer of a registry ends in another error where its digest is wrong.
	k.all = k.all || errors.Is(err, io.EOF)
	return n, err
}

func (k *keeping) Close() error {
	if k.to.Close() != nil || k.bad || !k.all || os.Rename(k.to.Name(), k.path) != nil {
		_ = os.Remove(k.to.Name())
	}
	return k.from.Close()
}
