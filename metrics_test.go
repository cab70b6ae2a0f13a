package berth

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func after(seconds float64) time.Time {
	return began.Add(time.Duration(seconds * float64(time.Second)))
}

// rate is what a cluster tells: how many CPUs were used lately.
func rate(at, cores float64, memory int64) Reading {
	return Reading{Source: UsageFromCluster, At: after(at), Cores: cores, MemoryBytes: memory}
}

// count is what a cgroup tells: all that was used.
func count(at, cpuSeconds float64, memory int64) Reading {
	return Reading{Source: UsageFromAgent, At: after(at), CPUSeconds: &cpuSeconds, MemoryBytes: memory}
}

func metered(readings ...Reading) Meter {
	m := NewMeter(began)
	for _, r := range readings {
		m.Add(r)
	}
	return m
}

func TestRatesAndCountsBecomeTheSameSeconds(t *testing.T) {
	// Half a CPU for 15 s, then two for 30 s.
	rates := metered(rate(15, 0.5, 100), rate(30, 2, 300), rate(45, 2, 200))
	counts := metered(count(15, 7.5, 100), count(30, 37.5, 300), count(45, 67.5, 200))
	rates.Source = counts.Source
	if diff := cmp.Diff(counts, rates); diff != "" {
		t.Errorf("counts against rates:\n%s", diff)
	}
	if rates.Last.CPUSeconds != 67.5 || rates.CPUPeak != 2 || rates.MemoryPeakBytes != 300 || rates.MemorySum != 600 {
		t.Errorf("%+v", rates)
	}
}

func TestBetweenTwoWindowsItUsedAsMuchAsInThem(t *testing.T) {
	window := func(at, cores, seconds float64) Reading {
		r := rate(at, cores, 100)
		r.Window = time.Duration(seconds * float64(time.Second))
		return r
	}
	m := metered(window(15, 1, 10), window(30, 2, 10))
	if want := 15*1 + 5*1.5 + 10*2.0; m.Last.CPUSeconds != want || m.Cores != 2 {
		t.Errorf("%v CPU seconds, want %v", m.Last.CPUSeconds, want)
	}
	m = metered(window(5, 1, 10)) // begun before the task: a window that the program did not fill
	if m.Last.CPUSeconds != 5 {
		t.Errorf("%v CPU seconds, want 5", m.Last.CPUSeconds)
	}
	m = metered(window(15, 1, 15), window(15+600, 2, 10))
	if want := 15*1 + 170*1.5 + 10*2.0; m.Last.CPUSeconds != want || m.Unseen != 420 {
		t.Errorf("after a long time: %v CPU seconds, want %v, %v s unseen", m.Last.CPUSeconds, want, m.Unseen)
	}
}

func TestReadingsThatAreNoSample(t *testing.T) {
	negative := -1.0
	for name, r := range map[string]Reading{
		"the same again":                rate(15, 1, 100),
		"an older one":                  rate(10, 1, 100),
		"hardly newer":                  rate(15.5, 1, 100),
		"a rate below nothing":          rate(30, -1, 100),
		"a rate that is no number":      rate(30, math.NaN(), 100),
		"a rate without bounds":         rate(30, math.Inf(1), 100),
		"memory below nothing":          rate(30, 1, -1),
		"a count below nothing":         {Source: UsageFromAgent, At: after(30), CPUSeconds: &negative},
		"from before the program ran":   rate(-1, 1, 100),
		"from when the program started": rate(0, 1, 100),
	} {
		m := metered(rate(15, 1, 100))
		before := m
		if _, keep := m.Add(r); keep || m != before {
			t.Errorf("%s: taken for a sample: %+v", name, m)
		}
	}
}

func TestWhatWasUsedNeverGetsLess(t *testing.T) {
	m := metered(rate(15, 1, 100), count(30, 12, 100), count(45, 20, 100))
	if m.Last.CPUSeconds != 20 || m.Source != UsageFromAgent {
		t.Errorf("%+v", m)
	}
	if m = metered(rate(15, 1, 100), count(30, 12, 100)); m.Last.CPUSeconds != 15 || m.Cores != 0 {
		t.Errorf("the count is below what was told before: %+v", m)
	}
}

func TestTimeThatNobodySawIsNotInvented(t *testing.T) {
	m := metered(rate(15, 1, 100), rate(15+600, 1, 100))
	if m.Last.CPUSeconds != 15+180 || m.Unseen != 420 {
		t.Errorf("after ten minutes without a reading: %v CPU seconds, %v s unseen", m.Last.CPUSeconds, m.Unseen)
	}
	m = metered(count(15, 15, 100), count(15+600, 615, 100))
	if m.Last.CPUSeconds != 615 || m.Unseen != 0 {
		t.Errorf("a count knows what nobody saw: %v CPU seconds, %v s unseen", m.Last.CPUSeconds, m.Unseen)
	}
}

func TestTotalGoesOnFromTheLastReadingToTheEnd(t *testing.T) {
	m := metered(rate(15, 1, 100), rate(30, 2, 500))
	for by, want := range map[float64]float64{20: 45, 30: 45, 40: 65, 60: 105, 3600: 105} {
		total := m.Total(after(by))
		if *total.CPUSeconds != want || *total.MemoryPeakBytes != 500 || *total.Source != UsageFromCluster {
			t.Errorf("ended after %v s: %v CPU seconds, want %v", by, *total.CPUSeconds, want)
		}
	}
	empty := metered()
	if total := empty.Total(after(60)); total.CPUSeconds != nil || total.MemoryPeakBytes != nil || total.Source != nil {
		t.Errorf("without a reading: %+v", total)
	}
}

// However long a task runs, its samples are bounded and evenly spread, and its
// peaks are those of all readings.
func TestSamplesAreThinnedAndPeaksAreNot(t *testing.T) {
	const readings = 50_000
	m := NewMeter(began)
	var kept []Sample
	for i := range readings {
		r := rate(float64(15*(i+1)), 0.5, 100)
		if i == 33_333 { // which is dropped
			r.Cores, r.MemoryBytes = 3, 777
		}
		stride := m.Stride
		s, keep := m.Add(r)
		if keep {
			kept = append(kept, s)
		}
		if m.Stride != stride {
			kept = slices.DeleteFunc(kept, func(s Sample) bool { return !m.Kept(s) })
		}
		if len(kept) > MaxSamples {
			t.Fatalf("%d samples after %d readings", len(kept), i+1)
		}
	}
	if len(kept) < MaxSamples/2 {
		t.Errorf("%d samples are left of %d", len(kept), readings)
	}
	for i := 1; i < len(kept); i++ {
		if gap := kept[i].At.Sub(kept[i-1].At); gap != time.Duration(m.Stride)*15*time.Second {
			t.Fatalf("%s between samples %d and %d, with a stride of %d", gap, i-1, i, m.Stride)
		}
	}
	if m.CPUPeak != 3 || m.MemoryPeakBytes != 777 || m.Readings != readings {
		t.Errorf("%+v", m)
	}
	if want := 0.5*15*(readings-1) + 3*15; math.Abs(m.Last.CPUSeconds-want) > 0.001*want {
		t.Errorf("%v CPU seconds, want %v", m.Last.CPUSeconds, want)
	}
}
