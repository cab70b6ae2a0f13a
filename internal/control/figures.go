package control

import (
	"context"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/server"
)

const (
	countInterval = 10 * time.Second // tasks are counted at most this often: it reads an index of all of them
	probeInterval = 2 * time.Second  // the store is written to at most this often to see whether it can be
)

// figures tells how tasks and infrastructures stand, for metrics.
func (h *Host) figures(ctx context.Context) (server.Figures, error) {
	f := server.Figures{LogBytes: h.logBytes.Load(), OfferedConnections: h.dialled.offered.Load(), ForwardedConnections: h.dialled.forwarded.Load()}
	if h.storage.bucket != nil {
		unsent, since, failures := h.logs.Unsent()
		f.Storage = &server.StorageFigures{UnsentLogs: unsent, Failures: failures}
		if !since.IsZero() {
			f.Storage.UnsentFor = time.Since(since)
		}
	}
	var err error
	if f.Tasks, err = h.counts.get(ctx, h.store.CountByState); err != nil {
		return f, err
	}
	seen := map[string]bool{}
	add := func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		health, live, queued := h.engine.Health(name)
		f.Infrastructures = append(f.Infrastructures, server.InfrastructureFigures{Name: name, State: health.State, Live: live, Queued: queued})
	}
	for _, name := range h.engine.Infrastructures() {
		add(name)
	}
	h.mu.Lock()
	file := h.file
	h.mu.Unlock()
	if file != nil {
		for _, entry := range file.Infrastructures {
			add(entry.Name)
		}
	}
	return f, nil
}

// counts are the numbers of tasks, as they were a moment ago.
type counts struct {
	mu    sync.Mutex
	tasks map[berth.TaskState]int
	at    time.Time
}

func (c *counts) get(ctx context.Context, read func(context.Context) (map[berth.TaskState]int, error)) (map[berth.TaskState]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < countInterval {
		return c.tasks, nil
	}
	tasks, err := read(ctx)
	if err == nil {
		c.tasks, c.at = tasks, time.Now()
	}
	return tasks, err
}

// ready returns what says whether the store can be written, as it was a moment
// ago: anybody may ask, and asking costs a write.
func (h *Host) ready() func(context.Context) error {
	var mu sync.Mutex
	var at time.Time
	var last error
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(at) < probeInterval {
			return last
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeInterval)
		defer cancel()
		last, at = h.store.Probe(ctx), time.Now()
		return last
	}
}
