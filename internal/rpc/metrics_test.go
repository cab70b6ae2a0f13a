package rpc

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// measured answers with figures.
type measured struct {
	told
	metrics map[int]berth.TaskMetrics // by attempt
}

func (m measured) TaskMetrics(_ context.Context, id string, q berth.MetricsQuery) (berth.TaskMetrics, error) {
	metrics, ok := m.metrics[q.Attempt]
	if !ok || id != metrics.TaskID {
		return metrics, berth.Errorf(berth.CodeNotFound, "there is no attempt %d", q.Attempt)
	}
	return metrics, nil
}

func of[T any](v T) *T { return &v }

func TestMetricsArriveAsTheyWereSent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	full := berth.TaskMetrics{
		TaskID: "x", State: berth.StateSucceeded, Attempt: 2, StartedAt: &at, EndedAt: of(at.Add(time.Minute)), Source: of(berth.UsageFromAgent), Interval: 15,
		CPU:     berth.CPUUse{Seconds: of(1.5), Mean: of(0.1), Peak: of(0.2), Request: of(4.0), Limit: of(5.0), ThrottledSeconds: of(0.0)},
		Memory:  berth.MemoryUse{Mean: of(int64(1)), Peak: of(int64(2)), WorkingSet: of(int64(3)), Request: of(int64(4)), Limit: of(int64(5))},
		Samples: []berth.Sample{{At: at, CPUSeconds: 1, MemoryBytes: 7}, {At: at.Add(time.Second), CPUSeconds: 1.5, MemoryBytes: 8}},
		Advice:  []string{"ask for less"}, Note: of("a note"),
	}
	none := berth.TaskMetrics{TaskID: "x", State: berth.StateQueued, Interval: 15, Samples: []berth.Sample{}, Advice: []string{}}
	path, handler := NewHandler(measured{metrics: map[int]berth.TaskMetrics{0: none, 2: full}}, HandlerOptions{})
	if path == "" {
		t.Fatal("no path")
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client := NewClient(server.Client(), server.URL, "")
	for attempt, want := range map[int]berth.TaskMetrics{0: none, 2: full} {
		got, err := client.TaskMetrics(t.Context(), "x", berth.MetricsQuery{Attempt: attempt})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attempt %d (-want +got):\n%s", attempt, diff)
		}
	}
	if _, err := client.TaskMetrics(t.Context(), "x", berth.MetricsQuery{Attempt: 3}); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("an attempt that there isn't: %v", err)
	}
}
