package berth

import (
	"strings"
	"testing"
	"time"
)

const (
	mi = 1 << 20
	gi = 1 << 30
)

func of[T any](v T) *T { return &v }

func TestAdvice(t *testing.T) {
	long := 10 * time.Minute
	for _, tt := range []struct {
		name   string
		cpu    CPUUse
		memory MemoryUse
		ran    time.Duration
		cause  Cause
		want   []string // a piece of each sentence
	}{
		{name: "far more CPU than used", cpu: CPUUse{Request: of(4.0), Mean: of(0.3), Peak: of(0.5)}, ran: long,
			want: []string{"It asked for 4 CPU and used 0.3 on average, 0.5 at most: --cpu 600m would do."}},
		{name: "far more CPU than used, by the total alone", cpu: CPUUse{Request: of(4.0), Mean: of(0.3)}, ran: long,
			want: []string{"It asked for 4 CPU and used 0.3 on average: --cpu 800m would do."}},
		{name: "CPU that fits", cpu: CPUUse{Request: of(1.0), Mean: of(0.6), Peak: of(0.9)}, ran: long},
		{name: "a peak that needs it", cpu: CPUUse{Request: of(4.0), Mean: of(0.1), Peak: of(3.5)}, ran: long},
		{name: "the least there is", cpu: CPUUse{Request: of(0.1), Mean: of(0.001), Peak: of(0.002)}, ran: long},
		{name: "all of the CPU, where nobody knows of throttling", cpu: CPUUse{Request: of(1.0), Mean: of(0.97), Peak: of(1.0)}, ran: long,
			want: []string{"It asked for 1 CPU and used all of it (0.97 on average): --cpu 2 may make it faster"}},
		{name: "one busy thread on its own CPU", cpu: CPUUse{Request: of(1.0), Mean: of(0.99), Peak: of(1.0), ThrottledSeconds: of(0.5)}, ran: long},
		{name: "held back", cpu: CPUUse{Request: of(0.5), Mean: of(0.5), Peak: of(0.5), ThrottledSeconds: of(290.0)}, ran: long,
			want: []string{"It was held back at its limit of 0.5 CPU for 4m50s: --cpu 1 may make it faster"}},
		{name: "nothing was asked for", cpu: CPUUse{Mean: of(0.1), Peak: of(0.1)}, memory: MemoryUse{Peak: of(int64(10 * mi))}, ran: long},
		{name: "far more memory than used", memory: MemoryUse{Request: of(int64(8 * gi)), Limit: of(int64(8 * gi)), Peak: of(int64(600 * mi)), WorkingSet: of(int64(600 * mi))}, ran: long,
			want: []string{"It asked for 8 GiB of memory and used 600 MiB at most: --memory 768Mi would do."}},
		{name: "near its memory limit", memory: MemoryUse{Request: of(int64(gi)), Limit: of(int64(gi)), Peak: of(int64(1000 * mi)), WorkingSet: of(int64(1000 * mi))}, ran: long,
			want: []string{"It came within 24 MiB of its memory limit of 1 GiB, beyond which it is killed: --memory 1536Mi is safer."}},
		{name: "file cache up to the limit", memory: MemoryUse{Request: of(int64(gi)), Limit: of(int64(gi)), Peak: of(int64(gi)), WorkingSet: of(int64(700 * mi))}, ran: long},
		{name: "file cache up to the limit, and no samples", memory: MemoryUse{Request: of(int64(gi)), Limit: of(int64(gi)), Peak: of(int64(gi))}, ran: long},
		{name: "memory that fits", memory: MemoryUse{Request: of(int64(gi)), Limit: of(int64(gi)), Peak: of(int64(700 * mi)), WorkingSet: of(int64(700 * mi))}, ran: long},
		{name: "killed for memory, however soon", memory: MemoryUse{Request: of(int64(64 * mi)), Limit: of(int64(64 * mi))}, ran: time.Second, cause: CauseOOMKilled,
			want: []string{"It was killed because it wanted more memory than its limit of 64 MiB: try --memory 128Mi."}},
		{name: "too short to tell", cpu: CPUUse{Request: of(4.0), Mean: of(0.3), Peak: of(0.3)}, ran: 20 * time.Second},
		{name: "nothing measured", cpu: CPUUse{Request: of(4.0)}, memory: MemoryUse{Request: of(int64(gi))}, ran: long},
		{name: "both", cpu: CPUUse{Request: of(16.0), Mean: of(1.3), Peak: of(1.4)}, memory: MemoryUse{Request: of(int64(64 * gi)), Limit: of(int64(64 * gi)), Peak: of(int64(5 * gi))}, ran: long,
			want: []string{"--cpu 2 would do", "--memory 6656Mi would do"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &Attempt{}
			if tt.cause != "" {
				a.Outcome = &Outcome{Diagnosis: &Diagnosis{Cause: tt.cause}}
			}
			got := advice(&TaskMetrics{CPU: tt.cpu, Memory: tt.memory}, a, tt.ran)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i, piece := range tt.want {
				if !strings.Contains(got[i], piece) {
					t.Errorf("got %q, want %q", got[i], piece)
				}
			}
		})
	}
}

// What is advised can be asked for as it is written, and is enough.
func TestWhatIsAdvisedCanBeAskedFor(t *testing.T) {
	for _, cores := range []float64{0.0001, 0.1, 0.11, 0.95, 1, 1.01, 1.5, 7.3, 64} {
		if got := cpuToAsk(cores).cores(); got == nil || *got < cores || *got > cores+0.5 {
			t.Errorf("%v CPUs: --cpu %s", cores, cpuToAsk(cores))
		}
	}
	for _, bytes := range []float64{1, 16 * mi, 17 * mi, 256 * mi, 300 * mi, 2 * gi, 2.1 * gi, 100 * gi} {
		if got := bytesToAsk(bytes).bytes(); got == nil || float64(*got) < bytes || float64(*got) > bytes+512*mi {
			t.Errorf("%v bytes: --memory %s", bytes, bytesToAsk(bytes))
		}
	}
}

func TestFiguresForPeople(t *testing.T) {
	for cores, want := range map[float64]string{0: "0", 0.0004: "0", 0.003: "0.003", 0.25: "0.25", 0.999: "1", 3.5: "3.5", 10: "10", 100: "100", 12.34: "12.3"} {
		if got := FormatCPU(cores); got != want {
			t.Errorf("%v CPUs: %s, want %s", cores, got, want)
		}
	}
	for bytes, want := range map[int64]string{0: "0 B", 800: "800 B", 1024: "1 KiB", 1536: "1.5 KiB", 626688: "612 KiB", 64 * mi: "64 MiB", gi: "1 GiB", 10 * gi: "10 GiB", 2048 * gi: "2 TiB"} {
		if got := FormatBytes(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}
