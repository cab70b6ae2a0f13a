package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// olderCopy starts a process on a copy of a store, as it was before a task was
// submitted whose pod exists now.
func olderCopy(t *testing.T, c *cluster) (p *process, task berth.Task) {
	t.Helper()
	before, after := t.TempDir(), t.TempDir()
	p = start(t, before, c, berth.InfrastructureConfig{})
	c.mu.Lock()
	c.autoEnd = true
	c.mu.Unlock()
	p.settled(p.submit(nil).ID)
	p.crash()
	data, err := os.ReadFile(filepath.Join(before, "berth.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(after, "berth.db"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.autoEnd = false
	c.mu.Unlock()
	p = start(t, before, c, berth.InfrastructureConfig{})
	task = p.submit(nil)
	p.crash()
	return start(t, after, c, berth.InfrastructureConfig{}), task
}

// recorded waits until a store has a task that it did not know.
func (p *process) recorded(id string) {
	p.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := p.store.Life(p.t.Context(), id); err == nil {
			return
		} else if time.Now().After(deadline) {
			p.t.Fatal("the orphan is not recorded")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAPodOfAnUnknownTaskIsRecordedWithItsOutcomeAndLog(t *testing.T) {
	c := newCluster()
	c.logText = "2026-11-01T09:00:00Z hello\n"
	p, task := olderCopy(t, c)
	p.recorded(task.ID)
	if got := p.until(task.ID, func(berth.Task) bool { return true }); !got.Orphan || got.State.Terminal() || *got.Pod != *task.Pod {
		t.Errorf("it is recorded as %+v", got)
	}
	c.ends(*task.Pod, 3)
	if got := p.until(task.ID, ended); got.State != berth.StateFailed || *got.ExitCode != 3 {
		t.Errorf("it ended as %s", got.State)
	}
	p.until(task.ID, func(berth.Task) bool {
		life, err := p.store.Life(t.Context(), task.ID)
		return err == nil && life.Attempts[0].Logs == berth.LogsComplete
	})
	if _, _, left := c.counts(); left != 1 {
		t.Error("its pod was deleted at once")
	}

	// It stays for three minutes, for whoever else may need it.
	p.crash()
	p2 := start(t, p.dir, c, berth.InfrastructureConfig{})
	life, err := p2.store.Life(t.Context(), task.ID)
	if err != nil {
		t.Fatal(err)
	}
	p2.crash()
	life.Attempts[0].EndSeen = life.Attempts[0].EndSeen.Add(-berth.OrphanGrace)
	p3 := restarted(t, p.dir, c, life)
	p3.settled(task.ID)
	if _, _, left := c.counts(); left != 0 {
		t.Error("its pod is still there")
	}
}

// restarted starts a process on a store in which a life is as given.
func restarted(t *testing.T, dir string, c *cluster, life *berth.Life) *process {
	t.Helper()
	idle := newCluster()
	idle.identErr = &Refusal{Kind: RefusedUnreachable, Err: errors.New("no route")}
	p := start(t, dir, idle, berth.InfrastructureConfig{})
	if err := p.store.Commit(t.Context(), []berth.Change{{Life: life}}); err != nil {
		t.Fatal(err)
	}
	p.crash()
	return start(t, dir, c, berth.InfrastructureConfig{})
}

func TestAnOrphanIsNeverTriedAgain(t *testing.T) {
	c := newCluster()
	p, task := olderCopy(t, c)
	p.recorded(task.ID)
	c.mu.Lock()
	o := c.pods[*task.Pod]
	o.Outcome = &berth.Outcome{ByCluster: true, NeverStarted: true, Diagnosis: &berth.Diagnosis{Cause: berth.CauseEvicted}}
	c.pods[*task.Pod] = o
	c.sink.Observed(o)
	c.mu.Unlock()
	if got := p.until(task.ID, ended); got.State != berth.StateFailed {
		t.Errorf("it ended as %s", got.State)
	}
}
