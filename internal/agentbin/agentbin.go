// Package agentbin carries the agent (cmd/berthlet) inside of berth, for each
// platform that containers run on: so that building a package, or running
// steps, needs nothing but berth. `make build` puts it there.
package agentbin

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/berth-run/berth"
)

// Platforms that containers run on, as os/arch.
var Platforms = []string{"linux/amd64", "linux/arm64"}

// dist holds berthlet-OS-ARCH.gz; in a tree that was not built with make only
// its README.
//
//go:embed all:dist
var dist embed.FS

var (
	mu       sync.Mutex
	unpacked = map[string][]byte{}
)

// Binary returns the agent for a platform: the one that berth carries, or
// where it carries none the file that BERTH_BERTHLET names or that lies beside
// this program, for this machine's platform. CodeUnsupported when there is none.
func Binary(platform string) ([]byte, error) {
	mu.Lock()
	defer mu.Unlock()
	if data := unpacked[platform]; data != nil {
		return data, nil
	}
	data, err := carried(platform)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = beside(platform)
	}
	if err != nil {
		return nil, err
	}
	unpacked[platform] = data
	return data, nil
}

func carried(platform string) ([]byte, error) {
	packed, err := dist.ReadFile("dist/berthlet-" + strings.ReplaceAll(platform, "/", "-") + ".gz")
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("the agent inside berth can't be unpacked: %w", err)
	}
	return io.ReadAll(r)
}

func beside(platform string) ([]byte, error) {
	if platform == "linux/"+runtime.GOARCH {
		var paths []string
		if path := os.Getenv("BERTH_BERTHLET"); path != "" {
			paths = append(paths, path)
		}
		if self, err := os.Executable(); err == nil {
			paths = append(paths, filepath.Join(filepath.Dir(self), "berthlet"))
		}
		for _, path := range paths {
			if data, err := os.ReadFile(path); err == nil {
				return data, nil
			}
		}
	}
	return nil, berth.Errorf(berth.CodeUnsupported, "this berth carries no agent for %s: build it with make build, which puts agents for %s into it", platform, strings.Join(Platforms, " and "))
}
