package engine

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

func TestHeartbeatsAreAnsweredAndChangeNothing(t *testing.T) {
	c := newCluster()
	p := startWatching(t, c)
	task := p.submit(withSteps)
	beat := agent.Event{Type: berth.EventHeartbeat, At: time.Now()}
	before, events := p.stored(task.ID), p.events(task.ID)
	p.tells(reportOf(task, beat))
	p.tells(reportOf(task, beat, beat))
	if diff := cmp.Diff(before, p.stored(task.ID)); diff != "" {
		t.Errorf("a heartbeat changed (-before +after):\n%s", diff)
	}
	p.tells(reportOf(task, beat, ready(), beat))
	want := append(slices.Clone(events), berth.EventStarted, berth.EventReady)
	if diff := cmp.Diff(want, p.events(task.ID)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	p.tells(reportOf(task, completion(2, 0, "")))
	if err := p.engine.Told(t.Context(), reportOf(task, beat)); !errors.Is(err, ErrOver) {
		t.Errorf("a heartbeat after the end: %v", err)
	}
}

func TestAnAgentThatReportsFailureIsTriedAgainAndTheFirstIsOver(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	first := p.submit(func(s *berth.TaskSpec) { withSteps(s); s.Retries = 1 })
	p.tells(reportOf(first, completion(1, 3, "")))
	second := p.until(first.ID, func(task berth.Task) bool {
		return task.Attempt == 2 && p.stored(first.ID).Current().UID != ""
	})
	for _, stale := range []agent.Report{
		reportOf(first, completion(2, 0, `"stale"`)),
		{Task: first.ID, Attempt: 2, Pod: *first.Pod, Events: []agent.Event{completion(2, 0, `"stale"`)}}, // its token, the other's number
	} {
		if err := p.engine.Told(t.Context(), stale); !errors.Is(err, ErrOver) {
			t.Errorf("the first attempt was answered: %v", err)
		}
	}
	p.tells(reportOf(second, completion(1, 0, `"answer"`)))
	task := p.until(first.ID, ended)
	if task.State != berth.StateSucceeded || string(task.Result) != `"answer"` || task.Attempt != 2 {
		t.Errorf("attempt %d of the task is %s, its result %s", task.Attempt, task.State, task.Result)
	}
	if made, _, _ := c.counts(); made != 2 {
		t.Errorf("%d pods were made", made)
	}
}

func TestACancelledTaskStaysCancelledWhateverItsAgentTells(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(withSteps)
	if _, err := p.engine.Cancel(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	if err := p.engine.Told(t.Context(), reportOf(task, completion(1, 0, `"answer"`))); err != nil && !errors.Is(err, ErrOver) {
		t.Fatal(err)
	}
	if task = p.until(task.ID, ended); task.State != berth.StateCancelled {
		t.Errorf("the task is %s", task.State)
	}
}

func TestWhatAnAgentToldOutlivesACrash(t *testing.T) {
	dir, c := t.TempDir(), newCluster()
	p := start(t, dir, c, berth.InfrastructureConfig{})
	task := p.submit(withSteps)
	p.tells(reportOf(task, ready(), step1(2, berth.EventStepStarted, berth.StepRunning)))
	p.crash()
	p = start(t, dir, c, berth.InfrastructureConfig{})
	p.tells(reportOf(task, ready(), step1(2, berth.EventStepStarted, berth.StepRunning))) // its answer was lost
	p.tells(reportOf(task, step1(3, berth.EventStepFinished, berth.StepSucceeded), completion(4, 0, `"answer"`)))
	p.crash()
	c.mu.Lock()
	c.sink = nil
	c.mu.Unlock()
	c.ends(*task.Pod, 0)
	p = start(t, dir, c, berth.InfrastructureConfig{})
	life := p.settled(task.ID)
	if life.Task.State != berth.StateSucceeded || string(life.Task.Result) != `"answer"` || life.Current().AgentSeq != 4 {
		t.Errorf("the task is %s, its result %s, %d events taken in", life.Task.State, life.Task.Result, life.Current().AgentSeq)
	}
	seen := map[berth.EventType]int{}
	for _, e := range p.events(task.ID) {
		if seen[e]++; seen[e] > 1 {
			t.Errorf("%s was recorded %d times", e, seen[e])
		}
	}
}
