package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fromRootFS makes an image of a root filesystem.
func fromRootFS(path, cacheDir string, p *v1.Platform) (v1.Image, error) {
	layer, err := rootFSLayer(path, cacheDir)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	return configured(image, func(config *v1.ConfigFile) {
		config.OS, config.Architecture = p.OS, p.Architecture
		config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	})
}

// compressed is what compressing a layer gave. It is noted, as that takes
// seconds for a root filesystem, and a registry that has the layer already asks
// for no more than this.
type compressed struct {
	DiffID v1.Hash `json:"diffID"`
	Digest v1.Hash `json:"digest"`
	Size   int64   `json:"size"`
}

// rootFSLayer is the layer of a tar file. Notes are kept in cacheDir; where it
// is empty, none are.
func rootFSLayer(path, cacheDir string) (v1.Layer, error) {
	if cacheDir == "" {
		return tarball.LayerFromFile(path)
	}
	sum, err := sumOf(path)
	if err != nil {
		return nil, err
	}
	// Another release of Go may compress to other bytes.
	note := filepath.Join(cacheDir, "rootfs-"+sum+"-"+runtime.Version()+".json")
	var known compressed
	if data, err := os.ReadFile(note); err == nil && json.Unmarshal(data, &known) == nil && known.Size > 0 {
		return &notedLayer{compressed: known, layer: sync.OnceValues(func() (v1.Layer, error) { return tarball.LayerFromFile(path) })}, nil
	}
	layer, err := tarball.LayerFromFile(path)
	if err != nil {
		return nil, err
	}
	if known.DiffID, err = layer.DiffID(); err != nil {
		return nil, err
	}
	if known.Digest, err = layer.Digest(); err != nil {
		return nil, err
	}
	if known.Size, err = layer.Size(); err != nil {
		return nil, err
	}
	// Without the note the next build is slow, and no more.
	if data, err := json.Marshal(known); err == nil && os.MkdirAll(cacheDir, 0o700) == nil {
		_ = os.WriteFile(note, data, 0o600)
	}
	return layer, nil
}

func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// notedLayer is a layer that is compressed only where its content is asked for.
type notedLayer struct {
	compressed
	layer func() (v1.Layer, error)
}

func (l *notedLayer) Digest() (v1.Hash, error)            { return l.compressed.Digest, nil }
func (l *notedLayer) DiffID() (v1.Hash, error)            { return l.compressed.DiffID, nil }
func (l *notedLayer) Size() (int64, error)                { return l.compressed.Size, nil }
func (l *notedLayer) MediaType() (types.MediaType, error) { return types.DockerLayer, nil }

func (l *notedLayer) Compressed() (io.ReadCloser, error) {
	layer, err := l.layer()
	if err != nil {
		return nil, err
	}
	return layer.Compressed()
}

func (l *notedLayer) Uncompressed() (io.ReadCloser, error) {
	layer, err := l.layer()
	if err != nil {
		return nil, err
	}
	return layer.Uncompressed()
}
