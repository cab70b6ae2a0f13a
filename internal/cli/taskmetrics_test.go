package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

func of[T any](v T) *T { return &v }

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// course is a task that was sampled every 15 s: CPUs, and MiB.
func course(cores []float64, mi []int64) *berth.TaskMetrics {
	m := &berth.TaskMetrics{TaskID: "d1", State: berth.StateSucceeded, Attempt: 1, StartedAt: of(began), Source: of(berth.UsageFromCluster), Interval: 15}
	total, peak, most, sum := 0.0, 0.0, int64(0), int64(0)
	for i := range cores {
		total += 15 * cores[i]
		peak, most, sum = max(peak, cores[i]), max(most, mi[i]<<20), sum+mi[i]<<20
		m.Samples = append(m.Samples, berth.Sample{At: began.Add(time.Duration(i+1) * 15 * time.Second), CPUSeconds: total, MemoryBytes: mi[i] << 20})
	}
	n := len(cores)
	m.EndedAt = of(m.Samples[n-1].At)
	m.CPU = berth.CPUUse{Seconds: &total, Peak: &peak, Mean: of(total / float64(15*n))}
	m.Memory = berth.MemoryUse{Peak: &most, WorkingSet: &most, Mean: of(sum / int64(n))}
	return m
}

// Each page is a file of testdata/metrics; go test -update writes them anew.
func TestMetricsPages(t *testing.T) {
	rising := course([]float64{0.1, 0.5, 1, 1.5, 1.9, 2, 2, 1, 0.2, 0}, []int64{10, 50, 100, 200, 300, 400, 500, 600, 600, 20})
	rising.CPU.Request, rising.CPU.Limit, rising.Memory.Request, rising.Memory.Limit = of(2.0), of(2.0), of(int64(1<<30)), of(int64(1<<30))
	far := course([]float64{0.3, 0.2, 0.35, 0.3}, []int64{100, 120, 90, 100})
	far.CPU.Request, far.CPU.Limit, far.Memory.Request, far.Memory.Limit = of(4.0), of(4.0), of(int64(8<<30)), of(int64(8<<30))
	far.Attempt, far.Advice = 2, []string{"It asked for 4 CPU and used 0.29 on average, 0.35 at most: --cpu 500m would do.", "It asked for 8 GiB of memory and used 120 MiB at most: --memory 160Mi would do."}
	unlimited := course([]float64{1, 0, 1, 0, 1, 0, 1, 0}, []int64{1, 2, 3, 4, 5, 6, 7, 8})
	idle := course([]float64{0, 0, 0}, []int64{0, 0, 0})
	short := &berth.TaskMetrics{
		TaskID: "d1", State: berth.StateSucceeded, Attempt: 1, StartedAt: of(began), EndedAt: of(began.Add(200 * time.Millisecond)), Source: of(berth.UsageFromAgent),
		CPU: berth.CPUUse{Seconds: of(0.153), Mean: of(0.765), Limit: of(1.0), Request: of(1.0), ThrottledSeconds: of(0.0)}, Memory: berth.MemoryUse{Peak: of(int64(7 << 20))},
		Note: of("it ended after 200ms: too short to be sampled (every 15s); the totals are what its agent counted"),
	}
	none := &berth.TaskMetrics{TaskID: "d1", State: berth.StateQueued, Note: of("it has not started yet")}
	for name, tt := range map[string]struct {
		metrics *berth.TaskMetrics
		width   int
	}{"rising": {rising, 80}, "rising-narrow": {rising, 40}, "far-from-what-was-asked": {far, 80}, "unlimited": {unlimited, 60}, "idle": {idle, 60}, "short": {short, 80}, "queued": {none, 80}} {
		got := metricsPage(tt.metrics, tt.width)
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > tt.width && !strings.Contains(line, ": ") {
				t.Errorf("%s: a line of %d columns, where there are %d: %q", name, n, tt.width, line)
			}
		}
		path := filepath.Join("testdata", "metrics", name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
