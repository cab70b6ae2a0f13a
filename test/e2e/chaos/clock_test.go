//go:build e2e

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The time of day jumps by a day in either direction while tasks run, and by
// minutes while the control plane is killed: tasks run once, and nobody waits
// longer for it. A jump ahead while no control plane runs is time that passed.
func TestTheClockJumps(t *testing.T) {
	w := newWorkload(t)
	p := newPlane(t, newNamespace(t), "", "")
	clock := filepath.Join(p.dir, "clock")
	set := func(offset time.Duration) {
		t.Helper()
		if err := os.WriteFile(clock+".new", []byte(offset.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(clock+".new", clock); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	p.env = []string{"BERTH_CRASH_CLOCK=" + clock}
	p.start()
	done := make(chan struct{})
	var jumping sync.WaitGroup
	jumping.Go(func() {
		var offset time.Duration
		for n := 0; ; n++ {
			jump := time.Duration(rand.IntN(8)-4) * time.Minute
			if n%2 == 0 {
				jump = []time.Duration{26 * time.Hour, -26 * time.Hour}[n/2%2]
			}
			offset += jump
			set(offset)
			if n%2 == 1 {
				p.kill()
			}
			select {
			case <-done:
				return
			case <-time.After(2 * time.Second):
			}
		}
	})
	var kinds []kind
	for range 3 {
		kinds = append(kinds, plain, failing, retried, canceled, long, again)
	}
	w.all(p, 3*time.Minute, kinds...)
	close(done)
	jumping.Wait()
	t.Log(fmt.Sprint(w.judge(), "; ", p.kills(), " kills"))
}
