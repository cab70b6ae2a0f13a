package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// Nothing happens to either task, and whoever watches is told all the same.
func TestATaskWithoutAPodSaysWhatItWaitsFor(t *testing.T) {
	c := newCluster()
	answer := make(chan struct{})
	c.onCreate = func(Order) error { c.mu.Unlock(); <-answer; c.mu.Lock(); return nil }
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 1}})
	t.Cleanup(func() { close(answer) })
	asked := p.submit(nil)
	p.until(asked.ID, func(task berth.Task) bool { return task.State == berth.StateLaunching })
	queued := p.submit(nil)
	for id, words := range map[string]string{
		asked.ID:  "the cluster has been asked to create pod berth-" + asked.ID + "-1 and has not answered since ",
		queued.ID: "1 of at most 1 tasks run on here (limits: max_pods), 1 queued",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		said := false
		for task, err := range p.engine.Watch(ctx, id) {
			if err != nil {
				break
			}
			if said = task.Reason != nil && strings.Contains(*task.Reason, words); said {
				break
			}
		}
		cancel()
		if !said {
			t.Errorf("within 5 s nobody said %q", words)
		}
	}
}
