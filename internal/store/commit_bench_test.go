package store

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

// BenchmarkCommit measures how fast tasks are stored, each with its life as
// JSON and an event, in batches as they are submitted, and then changed, as
// loops do it. Both databases are as durable as in use.
//
//	go test -run - -bench Commit ./internal/store
func BenchmarkCommit(b *testing.B) {
	stores := map[string]func(b *testing.B) *Store{
		"sqlite":   func(b *testing.B) *Store { return opened(b, filepath.Join(b.TempDir(), "berth.db")) },
		"postgres": func(b *testing.B) *Store { return openedURL(b, pgtest.New(b).Database(b)) },
	}
	for _, name := range []string{"sqlite", "postgres"} {
		for _, size := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("new/%s/batch=%d", name, size), func(b *testing.B) {
				s := stores[name](b)
				perTask(b, size, newTasks, s)
			})
		}
		b.Run(fmt.Sprintf("changed/%s/batch=100", name), func(b *testing.B) {
			s := stores[name](b)
			changes := newTasks(10_000)
			if err := s.Commit(b.Context(), changes); err != nil {
				b.Fatal(err)
			}
			next := 0
			perTask(b, 100, func(n int) []berth.Change {
				some := make([]berth.Change, n)
				for i := range some {
					life := changes[next%len(changes)].Life
					next++
					some[i] = berth.Change{Life: life, Events: []berth.Event{{TaskID: life.Task.ID, Attempt: 1, Type: berth.EventScheduled, Message: "on node worker-1", At: time.Now()}}}
				}
				return some
			}, s)
		})
	}
}

// perTask commits b.N tasks in batches, and reports tasks/s. Making them is not counted.
func perTask(b *testing.B, size int, batch func(int) []berth.Change, s *Store) {
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	for done := 0; done < b.N; done += size {
		changes := batch(min(size, b.N-done))
		b.StartTimer()
		if err := s.Commit(b.Context(), changes); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func newTasks(n int) []berth.Change {
	changes := make([]berth.Change, n)
	now := time.Now()
	for i := range changes {
		id := xid.New().String()
		spec := berth.TaskSpec{
			Image: "registry.example.org/group/program:1.2", Args: []string{"--input", "/data/part-" + id, "--verbose"}, Infrastructure: "site-a", Name: "simulate",
			CPU: "500m", Memory: "512Mi", Env: []berth.EnvVar{{Name: "OMP_NUM_THREADS", Value: "1"}}, Labels: map[string]string{"project": "climate"}, Timeout: time.Hour,
		}
		life, events := berth.NewLife(id, "ann", "ann/"+id, spec, now)
		changes[i] = berth.Change{Life: life, Events: events, New: true}
	}
	return changes
}

// BenchmarkArray measures how fast arrays of 10,000 tasks are stored, each by
// one transaction.
func BenchmarkArray(b *testing.B) {
	const size = 10_000
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(name, func(b *testing.B) {
			var s *Store
			if name == "sqlite" {
				s = opened(b, filepath.Join(b.TempDir(), "berth.db"))
			} else {
				s = openedURL(b, pgtest.New(b).Database(b))
			}
			stored := 0
			for b.Loop() {
				array := &berth.Array{ID: berth.NewArrayID(xid.New().String()), Infrastructure: "site-a", Owner: "ann", Size: size, CreatedAt: time.Now()}
				n := 0
				err := s.AddArray(b.Context(), array.ID, array, func() (*berth.Change, error) {
					if n == size {
						return nil, nil
					}
					n++
					c := newTasks(1)[0]
					c.Life.Task.Array = &berth.ArrayItem{ID: array.ID, Index: n}
					return &c, nil
				})
				if err != nil {
					b.Fatal(err)
				}
				stored += size
			}
			b.ReportMetric(float64(stored)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
