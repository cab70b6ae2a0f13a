package logs

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// talk is a stream of lines as programs write them: a time, a level, a
// sentence with numbers.
type talk struct {
	left int64 // bytes
	at   time.Time
	line []byte
	rand *rand.Rand
}

func newTalk(size int64) *talk {
	return &talk{left: size, at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), rand: rand.New(rand.NewPCG(1, 2))}
}

func (r *talk) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(r.line) == 0 {
			if r.left <= 0 {
				return n, io.EOF
			}
			r.at = r.at.Add(time.Duration(r.rand.IntN(200)) * time.Microsecond)
			r.line = fmt.Appendf(nil, "%s INFO worker %d finished batch %d of epoch %d: loss %.6f, %d samples in %.3f s\n",
				r.at.Format(time.RFC3339Nano), r.rand.IntN(16), r.rand.IntN(100_000), r.rand.IntN(100), r.rand.Float64(), r.rand.IntN(10_000), r.rand.Float64())
			r.left -= int64(len(r.line))
		}
		c := copy(p[n:], r.line)
		n, r.line = n+c, r.line[c:]
	}
	return n, nil
}

// BenchmarkLargeLog stores a log (BERTH_BENCH_LOG bytes of it, 64 MiB) and
// reads the end of it: how much room it takes, how long each takes, and the
// memory that is allocated for the end.
func BenchmarkLargeLog(b *testing.B) {
	size := int64(64 << 20)
	if text := os.Getenv("BERTH_BENCH_LOG"); text != "" {
		if _, err := fmt.Sscan(text, &size); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		s, err := Open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		w, err := s.Append("task", 1, false)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := w.Copy(newTalk(size), true); err != nil {
			b.Fatal(err)
		}
		if err := w.Seal(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(size)/(1<<20)/time.Since(began).Seconds(), "MiB/s-written")
		w.Close()
		info, err := os.Stat(s.sealedPath("task", 1))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(size)/float64(info.Size()), "times-smaller")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read := func(q berth.LogQuery) (bytes int, took time.Duration) {
			began := time.Now()
			for chunk, err := range s.Read(context.Background(), "task", 1, q, func() bool { return true }) {
				if err != nil {
					b.Fatal(err)
				}
				bytes += len(chunk.Data)
			}
			return bytes, time.Since(began)
		}
		_, took := read(berth.LogQuery{Tail: 100})
		runtime.ReadMemStats(&after)
		b.ReportMetric(took.Seconds()*1000, "ms-for-tail")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/(1<<20), "MiB-for-tail")
		_, took = read(berth.LogQuery{})
		b.ReportMetric(float64(size)/(1<<20)/took.Seconds(), "MiB/s-read")
		_, took = read(berth.LogQuery{Grep: "batch 9999 of", Tail: 5})
		b.ReportMetric(took.Seconds()*1000, "ms-for-grep-tail")
	}
}
