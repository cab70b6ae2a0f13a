package engine

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// withSteps is a task that an agent runs.
func withSteps(s *berth.TaskSpec) { s.Steps = []berth.Step{{Name: "one", Run: "true"}} }

func reportOf(task berth.Task, events ...agent.Event) agent.Report {
	return agent.Report{Task: task.ID, Attempt: task.Attempt, Pod: *task.Pod, Events: events}
}

func ready() agent.Event {
	return agent.Event{Seq: 1, Type: berth.EventReady, At: time.Now()}
}

func step1(seq int, eventType berth.EventType, state berth.StepState) agent.Event {
	return agent.Event{Seq: seq, Type: eventType, At: time.Now(), Step: 1, Status: &berth.StepStatus{Name: "one", State: state}}
}

func completion(seq, code int, result string) agent.Event {
	c := &agent.Completion{ExitCode: code, EndedAt: time.Now()}
	if result != "" {
		c.Result = json.RawMessage(result)
	}
	return agent.Event{Seq: seq, Type: berth.EventCompleted, At: c.EndedAt, Completion: c}
}

func (p *process) tells(report agent.Report) {
	p.t.Helper()
	if err := p.engine.Told(p.t.Context(), report); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) events(id string) []berth.EventType {
	p.t.Helper()
	events, err := p.store.Events(p.t.Context(), id, 0, 100)
	if err != nil {
		p.t.Fatal(err)
	}
	var out []berth.EventType
	for _, e := range events {
		out = append(out, e.Type)
	}
	return out
}

func (p *process) stored(id string) *berth.Life {
	p.t.Helper()
	life, err := p.store.Life(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return life
}

func TestWhatAnAgentTellsIsStoredBeforeItIsAnswered(t *testing.T) {
	c := newCluster()
	p := startWatching(t, c)
	task := p.submit(withSteps)
	p.tells(reportOf(task, ready()))
	if life := p.stored(task.ID); life.Task.State != berth.StateRunning || life.Current().AgentSeq != 1 {
		t.Fatalf("the task is %s, %d events taken in", life.Task.State, life.Current().AgentSeq)
	}
	p.tells(reportOf(task, step1(2, berth.EventStepStarted, berth.StepRunning)))
	if state := p.stored(task.ID).Task.Steps[0].State; state != berth.StepRunning {
		t.Fatalf("the step is %s", state)
	}
	p.tells(reportOf(task, step1(3, berth.EventStepFinished, berth.StepSucceeded), completion(4, 0, `"answer"`)))
	life := p.stored(task.ID)
	if life.Task.State != berth.StateSucceeded || string(life.Task.Result) != `"answer"` || life.Task.Steps[0].State != berth.StepSucceeded {
		t.Fatalf("the task is %s, its result %s, its steps %v", life.Task.State, life.Task.Result, life.Task.Steps)
	}
	want := []berth.EventType{
		berth.EventQueued, berth.EventAdmitted, berth.EventCreated, berth.EventStarted, berth.EventReady,
		berth.EventStepStarted, berth.EventStepFinished, berth.EventCompleted, berth.EventFinished,
	}
	if diff := cmp.Diff(want, p.events(task.ID)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	c.ends(*task.Pod, 0)
	p.settled(task.ID)
	if _, _, left := c.counts(); left != 0 {
		t.Errorf("%d pods are left", left)
	}
}

func TestWhoeverReportsForWhatIsOverIsToldToStop(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(withSteps)
	tests := []struct {
		name   string
		change func(*agent.Report)
	}{
		{"another pod", func(r *agent.Report) { r.Pod = berth.PodName(task.ID, 2, 0) }},
		{"the pod of another task", func(r *agent.Report) { r.Pod = berth.PodName("other", 1, 0) }},
		{"an attempt that is to come", func(r *agent.Report) { r.Attempt = 2 }},
		{"no attempt", func(r *agent.Report) { r.Attempt = -1 }},
		{"a task that isn't there", func(r *agent.Report) { r.Task = "nosuchtask" }},
	}
	for _, test := range tests {
		for _, event := range []agent.Event{completion(1, 0, ""), {Type: berth.EventHeartbeat}} {
			report := reportOf(task, event)
			test.change(&report)
			if err := p.engine.Told(t.Context(), report); !errors.Is(err, ErrOver) {
				t.Errorf("%s of %s: %v", event.Type, test.name, err)
			}
		}
	}
	if life := p.stored(task.ID); life.Task.State != berth.StateLaunching || life.Current().AgentSeq != 0 {
		t.Errorf("the task is %s, %d events taken in", life.Task.State, life.Current().AgentSeq)
	}
	c.ends(*task.Pod, 0)
	p.settled(task.ID) // it is no longer live: what follows is read from the store
	for _, event := range []agent.Event{completion(1, 0, ""), {Type: berth.EventHeartbeat}} {
		if err := p.engine.Told(t.Context(), reportOf(task, event)); !errors.Is(err, ErrOver) {
			t.Errorf("%s after the end: %v", event.Type, err)
		}
	}
}

func TestAnAgentThatIsEarlierThanTheAnswerOfItsCreateTriesAgain(t *testing.T) {
	c := newCluster()
	made, answer := make(chan Order), make(chan struct{})
	c.afterCreate = func(o Order) error { c.mu.Unlock(); made <- o; <-answer; c.mu.Lock(); return nil }
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	go p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here", Steps: []berth.Step{{Name: "one", Run: "true"}}}})
	order := <-made
	report := agent.Report{Task: order.TaskID, Attempt: order.Attempt, Pod: order.Pod, Events: []agent.Event{completion(1, 0, `1`)}}
	if err := p.engine.Told(t.Context(), report); berth.CodeOf(err) != berth.CodeUnavailable || errors.Is(err, ErrOver) {
		t.Errorf("told before the create was answered: %v", err)
	}
	close(answer)
	p.until(order.TaskID, func(berth.Task) bool { return p.stored(order.TaskID).Current().UID != "" })
	p.tells(report)
	if task := p.until(order.TaskID, ended); task.State != berth.StateSucceeded || string(task.Result) != "1" {
		t.Errorf("the task is %s, its result %s", task.State, task.Result)
	}
}

func TestAResultThatComesTwiceIsTakenOnce(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(withSteps)
	var wg sync.WaitGroup
	answers := make([]error, 20)
	for i := range answers {
		wg.Go(func() {
			answers[i] = p.engine.Told(t.Context(), reportOf(task, ready(), completion(2, 0, `"answer"`)))
		})
	}
	wg.Wait()
	accepted := 0
	for _, err := range answers {
		switch {
		case err == nil:
			accepted++
		case !errors.Is(err, ErrOver):
			t.Error(err)
		}
	}
	events := p.events(task.ID)
	count := func(want berth.EventType) (n int) {
		for _, e := range events {
			if e == want {
				n++
			}
		}
		return n
	}
	if accepted == 0 || count(berth.EventCompleted) != 1 || count(berth.EventFinished) != 1 || count(berth.EventReady) != 1 {
		t.Errorf("%d answers of success; events %v", accepted, events)
	}
}

func TestTheResultAndTheContainersEndComeInAnyOrder(t *testing.T) {
	tests := []struct {
		name           string
		agent          agent.Event
		pod            int
		podFirst       bool
		want           berth.TaskState
		wantCode       int
		wantResult     string
		wantWarning    bool
		wantEndWaited  bool // the agent leaves the end to the container
		wantAnswerOver bool
	}{
		{name: "result, then end", agent: completion(1, 0, `"answer"`), want: berth.StateSucceeded, wantResult: `"answer"`},
		{name: "end, then result", agent: completion(1, 0, `"late"`), podFirst: true, want: berth.StateSucceeded, wantAnswerOver: true},
		{name: "success, then failure", agent: completion(1, 0, `"answer"`), pod: 137, want: berth.StateSucceeded, wantResult: `"answer"`, wantWarning: true},
		{name: "failure, then success", agent: completion(1, 3, ""), want: berth.StateFailed, wantCode: 3, wantWarning: true},
		{name: "end in failure, then success", agent: completion(1, 0, `"late"`), pod: 4, podFirst: true, want: berth.StateFailed, wantCode: 4, wantAnswerOver: true},
		{name: "an end that the container explains", agent: deferred(1), pod: 137, want: berth.StateFailed, wantCode: 137, wantEndWaited: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster()
			p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
			task := p.submit(withSteps)
			if test.podFirst {
				c.ends(*task.Pod, test.pod)
				p.until(task.ID, ended)
			}
			err := p.engine.Told(t.Context(), reportOf(task, test.agent))
			if errors.Is(err, ErrOver) != test.wantAnswerOver || err != nil && !test.wantAnswerOver {
				t.Fatalf("the agent was answered: %v", err)
			}
			if !test.podFirst {
				if state := p.stored(task.ID).Task.State; state.Terminal() == test.wantEndWaited {
					t.Fatalf("after the report the task is %s", state)
				}
				c.ends(*task.Pod, test.pod)
			}
			life := p.settled(task.ID)
			if life.Task.State != test.want || *life.Task.ExitCode != test.wantCode || string(life.Task.Result) != test.wantResult {
				t.Errorf("the task is %s, exit code %d, result %s", life.Task.State, *life.Task.ExitCode, life.Task.Result)
			}
			if events := p.events(task.ID); slices.Contains(events, berth.EventWarning) != test.wantWarning {
				t.Errorf("the events are %v", events)
			}
		})
	}
}

func deferred(seq int) agent.Event {
	e := completion(seq, 137, "")
	e.Completion.Deferred = true
	return e
}
