//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/internal/crash/points"
	"github.com/berth-run/berth/internal/pgtest"
)

// Control planes share a namespace and run tasks in it, while everything that
// they consist of and depend on breaks, over and over: two with a data directory
// each, and one of two servers that have a database. No task is lost but
// where the suite itself deleted its pod, none runs twice that did not say it
// may, and whoever waits is told the right end.
//
// make chaos runs it long; BERTH_CHAOS_TASKS and the other variables make it
// as long as is wanted.
func TestChaos(t *testing.T) {
	tasks := number(t, "BERTH_CHAOS_TASKS", 120)
	kills := number(t, "BERTH_CHAOS_KILLS", 10)
	restarts := number(t, "BERTH_CHAOS_RESTARTS", 2)
	others := number(t, "BERTH_CHAOS_FAULTS", len(ofAllElse))
	atOnce := number(t, "BERTH_CHAOS_AT_ONCE", 30)
	limit := time.Duration(number(t, "BERTH_CHAOS_MINUTES", 6)) * time.Minute
	seed := uint64(number(t, "BERTH_CHAOS_SEED", int(time.Now().Unix())))
	t.Logf("BERTH_CHAOS_SEED=%d gives the same faults in the same order", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	names, err := points.Find("../../../internal")
	if err != nil {
		t.Fatal(err)
	}
	n := newNamespace(t)
	small := smallDisk(t)
	s := &storm{
		workload: newWorkload(t), random: random, full: small, counts: map[string]int{},
		points: slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "engine.") && name != "store.before-commit" }),
	}
	s.interrupted = true
	s.planes = []*plane{newPlane(t, n, "", ""), newPlane(t, n, filepath.Join(small, "data"), "")}
	s.database = pgtest.New(t)
	shared := []string{"BERTH_DATABASE=" + s.database.Database(t), "BERTH_STORAGE=" + t.TempDir()}
	for range 2 {
		p := newPlane(t, n, "", "")
		p.env = append(p.env, shared...)
		s.planes = append(s.planes, p)
	}
	for _, p := range s.planes {
		p.start()
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()

	queue := make(chan kind)
	go func() {
		defer close(queue)
		for i := range tasks {
			k := plain
			switch i % 20 {
			case 1, 2:
				k = failing
			case 3, 4:
				k = retried
			case 5, 6:
				k = again
			case 7:
				k = canceled
			case 8, 9, 10, 11:
				k = long
			case 12:
				if i%100 == 12 {
					k = loud
				}
			}
			queue <- k
		}
	}()
	began := time.Now()
	var driving, striking sync.WaitGroup
	for i := range atOnce {
		driving.Go(func() {
			for k := range queue {
				s.drive(ctx, s.planes[i%len(s.planes)], k)
			}
		})
	}
	// Each has its own random numbers, so that the order is that of the seed.
	for i, faults := range [][]fault{times(random, kills, ofTheControlPlane), slices.Concat(times(random, restarts, ofTheAPIServer), times(random, others, ofAllElse))} {
		own := *s
		own.random = rand.New(rand.NewPCG(seed, uint64(i+1)))
		own.random.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		striking.Go(func() { own.spread(ctx, tasks, faults) })
	}
	driving.Wait()
	took := time.Since(began)
	cancel()
	striking.Wait()
	v := s.judge()
	killed := 0
	for _, p := range s.planes {
		killed += p.kills()
	}
	report(t, fmt.Sprintf("%s\n%d kills of a control plane, of which the suite sent %d and the others happened at a point; %v\nin %s",
		v, killed, s.counts[ofTheControlPlane[0].name]+s.counts[ofTheControlPlane[1].name], s.counts, took.Round(time.Second)))
	if killed < kills {
		t.Errorf("%d kills, and there should be %d", killed, kills)
	}
}

// smallDisk mounts one that is soon full.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("chaos", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting the small disk: %v", err)
		}
	})
	return dir
}

// report prints what is to be read also where all is well.
func report(t *testing.T, text string) {
	t.Log(text)
	if path := os.Getenv("BERTH_E2E_REPORT"); path != "" {
		if file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			fmt.Fprintln(file, "chaos:", text)
			file.Close()
		}
	}
}
