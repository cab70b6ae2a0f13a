//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// juicefsImage is what the mounting sidecar runs from: Debian and the JuiceFS client.
const juicefsImage = "docker.io/library/berth-test-juicefs:1"

// juicefsNoFUSE is the same on a node without FUSE: its /dev/fuse is a device
// that no kernel has.
const juicefsNoFUSE = "docker.io/library/berth-test-juicefs:no-fuse"

const noFUSE = `#!/bin/sh
rm -f /dev/fuse && mknod /dev/fuse c 10 254
exec /%s "$@"
`

// juicefs returns the path of the JuiceFS client.
var juicefs = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../../hack/juicefs.sh").Output()
	if err != nil {
		return "", fmt.Errorf("hack/juicefs.sh: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

var juicefsLoaded sync.Once

// loadJuiceFS puts the sidecar's image onto the node.
func loadJuiceFS(t *testing.T) {
	t.Helper()
	juicefsLoaded.Do(func() {
		archive := juicefsArchive(t)
		localkube(t, "load", archive)
		os.Remove(archive)
	})
}

// juicefsArchive writes the sidecar's images into a file.
func juicefsArchive(t *testing.T) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	program, err := juicefs()
	must(err)
	debian, err := tarball.LayerFromFile(strings.TrimPrefix(base(t), "rootfs:"))
	must(err)
	client, err := programImage(t, program, runtime.GOARCH, v1.Config{}, "usr/local/bin/juicefs").Layers()
	must(err)
	script := filepath.Join(t.TempDir(), "without-fuse")
	must(os.WriteFile(script, fmt.Appendf(nil, noFUSE, filepath.Base(program)), 0o755))
	wrapper, err := programImage(t, script, runtime.GOARCH, v1.Config{}, "usr/local/bin/juicefs").Layers()
	must(err)
	layers := append([]v1.Layer{debian}, client...)
	images := map[name.Reference]v1.Image{}
	for tag, layers := range map[name.Reference][]v1.Layer{name.MustParseReference(juicefsImage): layers, name.MustParseReference(juicefsNoFUSE): append(layers[:len(layers):len(layers)], wrapper...)} {
		image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux"})
		if err == nil {
			image, err = mutate.AppendLayers(image, layers...)
		}
		must(err)
		images[tag] = image
	}
	archive := filepath.Join(t.TempDir(), "juicefs.tar")
	must(tarball.MultiRefWriteToFile(archive, images))
	return archive
}
