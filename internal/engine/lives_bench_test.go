package engine

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/logs"
	"github.com/berth-run/berth/internal/store"
)

// BenchmarkLives is what Berth itself does for whole lives of tasks: submitted,
// created, ended, log kept, pod deleted, on a cluster that answers at once.
func BenchmarkLives(b *testing.B) {
	dir := b.TempDir()
	st, err := store.Open(b.Context(), filepath.Join(dir, "berth.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	logStore, err := logs.Open(filepath.Join(dir, "logs"))
	if err != nil {
		b.Fatal(err)
	}
	e := New(st, logKeeper{logStore}, plainTexts{}, plainAgents{}, slog.New(slog.DiscardHandler))
	defer e.Close()
	c := newCluster()
	c.autoEnd = true
	c.logText = "2026-11-01T09:00:00Z hello\n"
	if err := e.Start(b.Context(), berth.InfrastructureConfig{Name: "here", Grace: berth.DefaultGrace}, c); err != nil {
		b.Fatal(err)
	}
	e.Settle(b.Context(), "here")
	work := make(chan int)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := range work {
				spec := berth.TaskSpec{Image: "docker.io/library/busybox:1.35", Args: []string{"true"}, Infrastructure: "here", CPU: "10m", Memory: "16Mi"}
				task, err := e.Submit(b.Context(), "ann", "ann", berth.Submission{Key: fmt.Sprint(i), Spec: spec})
				if err != nil {
					b.Error(err)
					return
				}
				for task, err = range e.Watch(b.Context(), task.ID) {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	for _, _, left := c.counts(); left > 0; _, _, left = c.counts() {
		sleep(b.Context(), time.Millisecond)
	}
}
