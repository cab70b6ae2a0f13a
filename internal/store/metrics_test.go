package store

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// measure gives a meter readings, one every 15 s, and returns what is new.
func measure(m *berth.Meter, task string, readings int) berth.Metered {
	stride := m.Stride
	out := berth.Metered{TaskID: task, Attempt: 1}
	for range readings {
		at := m.StartedAt.Add(time.Duration(m.Readings+1) * berth.SampleInterval)
		if s, keep := m.Add(berth.Reading{Source: berth.UsageFromCluster, At: at, Cores: 0.5, MemoryBytes: 1 << 20}); keep {
			out.Samples = append(out.Samples, s)
		}
	}
	out.Meter, out.Thinned = *m, m.Stride != stride
	return out
}

func TestMetersAreReadAsTheyWereStored(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		a, b := berth.NewMeter(t0), berth.NewMeter(t0)
		first := measure(&a, "a", 2)
		if err := s.SaveMeters(t.Context(), []berth.Metered{first, measure(&b, "b", 1)}); err != nil {
			t.Fatal(err)
		}
		second := measure(&a, "a", 3)
		for range 2 { // whoever does not know whether it was done does it again
			if err := s.SaveMeters(t.Context(), []berth.Metered{second}); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		s = open()
		got, err := s.Metered(t.Context(), "a", 1)
		if err != nil {
			t.Fatal(err)
		}
		want := &berth.Metered{TaskID: "a", Attempt: 1, Meter: second.Meter, Samples: append(first.Samples, second.Samples...)}
		want.Meter.Last.Seq = 0 // which the number of readings tells
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, none := range []struct {
			task    string
			attempt int
		}{{"a", 2}, {"c", 1}} {
			if got, err := s.Metered(t.Context(), none.task, none.attempt); got != nil || err != nil {
				t.Errorf("%v: %+v, %v", none, got, err)
			}
		}
	})
}

func TestSamplesOfALongTaskAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		m := berth.NewMeter(t0)
		for range 20 {
			if err := s.SaveMeters(t.Context(), []berth.Metered{measure(&m, "a", 250)}); err != nil {
				t.Fatal(err)
			}
			got, err := s.Metered(t.Context(), "a", 1)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got.Samples); n > berth.MaxSamples || n < min(got.Meter.Readings, berth.MaxSamples/2) {
				t.Fatalf("%d samples of %d readings", n, got.Meter.Readings)
			}
			for i, sample := range got.Samples {
				if sample.Seq != i*got.Meter.Stride {
					t.Fatalf("sample %d is of reading %d, with a stride of %d", i, sample.Seq, got.Meter.Stride)
				}
			}
		}
	})
}

// However many tasks run, their meters are read by few queries.
func TestMetersOfManyTasks(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		var stored []berth.Metered
		tasks := []string{"never-measured"}
		for i := range 2*metersPage + 1 {
			m := berth.NewMeter(t0)
			id := "task-" + strconv.Itoa(i)
			stored, tasks = append(stored, measure(&m, id, 1)), append(tasks, id)
		}
		if err := s.SaveMeters(t.Context(), stored); err != nil {
			t.Fatal(err)
		}
		got, err := s.Meters(t.Context(), tasks)
		if err != nil || len(got) != len(stored) {
			t.Fatalf("%d meters of %d, %v", len(got), len(stored), err)
		}
		seen := map[string]bool{}
		for i := range got {
			seen[got[i].TaskID] = true
			if got[i].Meter.Last.CPUSeconds != 7.5 {
				t.Errorf("%+v", got[i])
			}
		}
		if len(seen) != len(stored) || seen["never-measured"] {
			t.Errorf("%d tasks", len(seen))
		}
		if got, err := s.Meters(t.Context(), nil); len(got) != 0 || err != nil {
			t.Errorf("of no task: %v, %v", got, err)
		}
	})
}
