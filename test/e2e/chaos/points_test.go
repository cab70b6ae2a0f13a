//go:build e2e

package chaos

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/internal/crash/points"
)

// The control plane dies at each place between two writes that has a name, is
// started again, and keeps its promises. The names are found in the sources.
func TestCrashAtEachPoint(t *testing.T) {
	names, err := points.Find("../../../internal")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 20 {
		t.Fatalf("there are more than these %v", names)
	}
	queue := make(chan string, len(names))
	for _, name := range names {
		queue <- name
	}
	close(queue)
	var workers sync.WaitGroup
	for range number(t, "BERTH_CHAOS_PARALLEL", 6) {
		workers.Go(func() {
			for name := range queue {
				t.Run(name, func(t *testing.T) { crashAt(t, name) })
			}
		})
	}
	workers.Wait()
}

func crashAt(t *testing.T, point string) {
	if strings.HasPrefix(point, "runs.") {
		crashInRun(t, point)
		return
	}
	if strings.HasPrefix(point, "compute.") {
		crashInCluster(t, point)
		return
	}
	w := newWorkload(t)
	p := newPlane(t, newNamespace(t), "", "")
	p.start(point)
	w.all(p, 2*time.Minute, plain, failing, retried, loud, canceled)
	if p.kills() == 0 {
		// Only who finds what another left behind passes it.
		p.kill("engine.before-create", point)
		w.all(p, 2*time.Minute, plain, failing, retried)
		if !p.dies(3, 10*time.Second) {
			t.Errorf("nothing that these tasks do passes %s", point)
		}
	}
	t.Log(w.judge())
}
