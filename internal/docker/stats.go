package docker

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

// Usage asks for the stats of each running container of the instance, one
// reading each: an Engine has no call for all. A container that ended
// meanwhile is left out.
func (d *Driver) Usage(ctx context.Context) (map[string]berth.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	filters := client.Filters{}.Add("label", berth.LabelInstance+"="+d.instance).Add("status", string(container.StateRunning))
	result, err := d.client.api.ContainerList(ctx, client.ContainerListOptions{Filters: filters})
	if err != nil {
		return nil, d.refusal(err, "list", "")
	}
	readings := map[string]berth.Reading{}
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, inspectors)
	for i := range result.Items {
		name, complete := ownName(result.Items[i].Names)
		if !complete {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if r, ok := d.stats(ctx, result.Items[i].ID); ok {
				mu.Lock()
				readings[name] = r
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return readings, ctx.Err()
}

func (d *Driver) stats(ctx context.Context, id string) (berth.Reading, bool) {
	response, err := d.client.api.ContainerStats(ctx, id, client.ContainerStatsOptions{})
	if err != nil {
		return berth.Reading{}, false
	}
	defer response.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(response.Body).Decode(&s); err != nil {
		return berth.Reading{}, false
	}
	return reading(&s)
}

// reading is what stats say; false for those of a container that has ended,
// which are all zero.
func reading(s *container.StatsResponse) (berth.Reading, bool) {
	if s.Read.IsZero() || s.CPUStats.CPUUsage.TotalUsage == 0 {
		return berth.Reading{}, false
	}
	const second = 1e9 // the Engine counts nanoseconds
	cpu := float64(s.CPUStats.CPUUsage.TotalUsage) / second
	throttled := float64(s.CPUStats.ThrottlingData.ThrottledTime) / second
	// File cache that isn't in use, as cgroup v1 and v2 call it.
	cache := s.MemoryStats.Stats["total_inactive_file"]
	if cache == 0 {
		cache = s.MemoryStats.Stats["inactive_file"]
	}
	memory := int64(s.MemoryStats.Usage) - int64(min(cache, s.MemoryStats.Usage))
	return berth.Reading{Source: berth.UsageFromDocker, At: s.Read, CPUSeconds: &cpu, ThrottledSeconds: &throttled, MemoryBytes: memory}, true
}
