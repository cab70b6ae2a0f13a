package docker

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/berth-run/berth"
)

func TestReadingOfAnEnginesStats(t *testing.T) {
	of := func(f float64) *float64 { return &f }
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		stats string
		want  berth.Reading
		none  bool
	}{
		"cgroup v1": {stats: `{"read":"2026-01-02T03:04:05Z","cpu_stats":{"cpu_usage":{"total_usage":1500000000},"throttling_data":{"throttled_time":250000000}},
			"memory_stats":{"usage":1000000,"max_usage":2000000,"stats":{"inactive_file":1,"total_inactive_file":400000}}}`,
			want: berth.Reading{Source: berth.UsageFromDocker, At: at, CPUSeconds: of(1.5), ThrottledSeconds: of(0.25), MemoryBytes: 600000}},
		"cgroup v2": {stats: `{"read":"2026-01-02T03:04:05Z","cpu_stats":{"cpu_usage":{"total_usage":2000000000}},"memory_stats":{"usage":1000000,"stats":{"inactive_file":300000}}}`,
			want: berth.Reading{Source: berth.UsageFromDocker, At: at, CPUSeconds: of(2), ThrottledSeconds: of(0), MemoryBytes: 700000}},
		"more cache than use, as each is counted at another time": {stats: `{"read":"2026-01-02T03:04:05Z","cpu_stats":{"cpu_usage":{"total_usage":1000000000}},"memory_stats":{"usage":10,"stats":{"inactive_file":11}}}`,
			want: berth.Reading{Source: berth.UsageFromDocker, At: at, CPUSeconds: of(1), ThrottledSeconds: of(0)}},
		"a container that has ended": {stats: `{"read":"0001-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{}}`, none: true},
	} {
		var s container.StatsResponse
		if err := json.Unmarshal([]byte(tt.stats), &s); err != nil {
			t.Fatal(err)
		}
		got, ok := reading(&s)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok == tt.none {
			t.Errorf("%s: %v (-want +got):\n%s", name, ok, diff)
		}
	}
}
