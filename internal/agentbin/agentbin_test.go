package agentbin

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/berth-run/berth"
)

func TestWithoutACarriedAgentTheOneBesideIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berthlet")
	if err := os.WriteFile(path, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BERTH_BERTHLET", path)
	data, err := beside("linux/" + runtime.GOARCH)
	if err != nil || string(data) != "program" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := beside("linux/s390x"); berth.CodeOf(err) != berth.CodeUnsupported {
		t.Errorf("another platform's agent: %v", err)
	}
}

func TestWhatIsCarriedCanBeUnpacked(t *testing.T) {
	for _, platform := range Platforms {
		data, err := carried(platform)
		if os.IsNotExist(err) {
			continue // go test in a tree that was not built with make
		}
		if err != nil || len(data) < 4 || string(data[:4]) != "\x7fELF" || len(data) > 12<<20 {
			t.Errorf("%s: %d bytes, %v; want a program of at most 12 MiB", platform, len(data), err)
		}
	}
}
