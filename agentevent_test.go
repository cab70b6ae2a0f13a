package berth_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/berth-run/berth"
)

// twoSteps is a task whose agent tells of two steps.
func twoSteps(s *berth.TaskSpec) {
	s.Steps = []berth.Step{{Name: "fetch", Run: "true"}, {Name: "count", Run: "true"}}
}

func stepStatus(name string, state berth.StepState) *berth.StepStatus {
	return &berth.StepStatus{Name: name, State: state}
}

// story is all that the agent of a task of two steps tells, in order: it ends
// with that exit code.
func story(code int) []berth.AgentEvent {
	last := berth.StepSucceeded
	outcome := &berth.Outcome{ExitCode: &code, Result: json.RawMessage(`"answer"`)}
	if code != 0 {
		last = berth.StepFailed
		outcome = &berth.Outcome{ExitCode: &code, Diagnosis: diagnosis(berth.CauseExitedNonZero)}
	}
	outcome.Steps = []berth.StepStatus{*stepStatus("fetch", berth.StepSucceeded), *stepStatus("count", last)}
	events := []berth.AgentEvent{
		{Type: berth.EventReady}, {Type: berth.EventInitialized}, {Type: berth.EventStarted},
		{Type: berth.EventStepStarted, Step: 1, Status: stepStatus("fetch", berth.StepRunning)},
		{Type: berth.EventStepFinished, Step: 1, Status: stepStatus("fetch", berth.StepSucceeded)},
		{Type: berth.EventStepStarted, Step: 2, Status: stepStatus("count", berth.StepRunning)},
		{Type: berth.EventStepFinished, Step: 2, Status: stepStatus("count", last)},
		{Type: berth.EventCompleted, Outcome: outcome},
	}
	for i := range events {
		events[i].Seq = i + 1
		events[i].At = at(3*time.Second + time.Duration(i)*time.Millisecond)
	}
	return events
}

// tellAll tells the open attempt's story.
func tellAll(l *berth.Life, events []berth.AgentEvent) []berth.Event {
	var out []berth.Event
	a := l.Current()
	for _, e := range events {
		out = append(out, l.Told(a.Number, a.Pod, e, at(10*time.Second))...)
	}
	return out
}

// ends is what of a life must not depend on the order in which things came.
func ends(l *berth.Life) map[string]any {
	return map[string]any{
		"state": l.Task.State, "exit code": l.Task.ExitCode, "result": string(l.Task.Result), "steps": l.Task.Steps,
		"diagnosis": l.Task.Diagnosis, "reason": l.Task.Reason, "attempts": len(l.Attempts), "process": l.Task.ProcessExitCode(),
	}
}

func TestAnAgentTellsATaskFromItsStartToItsResult(t *testing.T) {
	l := launched(twoSteps)
	got := types(tellAll(l, story(0)))
	want := []berth.EventType{
		berth.EventStarted, berth.EventReady, berth.EventInitialized, // it tells, so it runs
		berth.EventStepStarted, berth.EventStepFinished, berth.EventStepStarted, berth.EventStepFinished,
		berth.EventCompleted, berth.EventFinished,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	a := l.Current()
	if l.Task.State != berth.StateSucceeded || string(l.Task.Result) != `"answer"` || a.AgentSeq != 8 {
		t.Errorf("%s, result %s, %d events taken in", l.Task.State, l.Task.Result, a.AgentSeq)
	}
	if a.Outcome.Result != nil || a.Outcome.Steps != nil {
		t.Error("the result and the steps are kept twice")
	}
	if !a.EndedAt.Equal(at(3*time.Second+7*time.Millisecond)) || !a.EndSeen.IsZero() {
		t.Errorf("it ended at %s, by the container at %s", a.EndedAt, a.EndSeen)
	}
}

func TestWhatAnAgentTellsAndWhatBecomesOfIt(t *testing.T) {
	all := story(0)
	first, stepDone, completed := all[0], all[4], all[7]
	early := completed
	early.At = at(-time.Hour)
	bare := completed
	bare.Outcome = nil
	beyond := stepDone
	beyond.Step = 3
	none := stepDone
	none.Status = nil
	tests := []struct {
		name      string
		life      *berth.Life
		number    int
		pod       string // "": the attempt's own
		event     berth.AgentEvent
		want      []berth.EventType
		wantSeq   int
		wantState berth.TaskState
		check     func(*berth.Life) error
	}{
		{name: "the first", event: first, want: []berth.EventType{berth.EventStarted, berth.EventReady}, wantSeq: 1, wantState: berth.StateRunning},
		{name: "another attempt", number: 2, event: first, wantState: berth.StateLaunching},
		{name: "no attempt", number: -1, event: first, wantState: berth.StateLaunching},
		{name: "another pod", pod: "berth-d0task-1-1", event: first, wantState: berth.StateLaunching},
		{name: "a pod that was not seen", life: admitted(), event: first, wantState: berth.StateLaunching},
		{name: "no number", event: berth.AgentEvent{Type: berth.EventReady, At: at(3)}, wantState: berth.StateLaunching},
		{name: "a step that is not there", event: beyond, want: []berth.EventType{berth.EventStarted, berth.EventStepFinished}, wantSeq: 5, wantState: berth.StateRunning},
		{name: "a step without a status", event: none, want: []berth.EventType{berth.EventStarted, berth.EventStepFinished}, wantSeq: 5, wantState: berth.StateRunning},
		{name: "an end without an outcome", event: bare, want: []berth.EventType{berth.EventStarted}, wantSeq: 8, wantState: berth.StateRunning},
		{
			name: "a node whose clock is behind", event: early, wantSeq: 8, wantState: berth.StateSucceeded,
			want: []berth.EventType{berth.EventStarted, berth.EventCompleted, berth.EventFinished},
			check: func(l *berth.Life) error {
				if a := l.Current(); a.EndedAt.Before(a.StartedAt) || a.StartedAt.Before(a.IntendedAt) {
					return fmt.Errorf("intended at %s, begun at %s, ended at %s", a.IntendedAt, a.StartedAt, a.EndedAt)
				}
				return nil
			},
		},
		{
			name: "the end alone", event: completed, wantSeq: 8, wantState: berth.StateSucceeded,
			want: []berth.EventType{berth.EventStarted, berth.EventCompleted, berth.EventFinished},
			check: func(l *berth.Life) error {
				if l.Current().Outcome.NeverStarted {
					return fmt.Errorf("it never started")
				}
				return nil
			},
		},
		{name: "cancelled meanwhile", life: cancelled(), event: completed, wantSeq: 8, wantState: berth.StateCancelled, want: []berth.EventType{berth.EventStarted, berth.EventCompleted, berth.EventStopped}},
		{name: "the container ended before", life: endedFirst(), event: completed, wantState: berth.StateFailed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := test.life
			if l == nil {
				l = launched(twoSteps)
			}
			number, pod := 1, l.Attempts[0].Pod
			if test.number != 0 {
				number = test.number
			}
			if test.pod != "" {
				pod = test.pod
			}
			if diff := cmp.Diff(test.want, types(l.Told(number, pod, test.event, at(10*time.Second)))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if l.Task.State != test.wantState || l.Attempts[0].AgentSeq != test.wantSeq {
				t.Errorf("the task is %s, %d events taken in", l.Task.State, l.Attempts[0].AgentSeq)
			}
			if test.check != nil {
				if err := test.check(l); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func admitted() *berth.Life {
	l := newLife(twoSteps)
	l.Admit(at(time.Second))
	return l
}

func cancelled() *berth.Life {
	l := launched(twoSteps)
	l.Cancel(at(2 * time.Second))
	return l
}

func endedFirst() *berth.Life {
	l := launched(twoSteps)
	l.Observe(exited(l, 3), at(5*time.Second))
	return l
}

func TestAgentAndContainerThatDisagreeAreRecorded(t *testing.T) {
	tests := []struct {
		name        string
		agent, pod  int
		wantWarning bool
	}{
		{name: "they agree", agent: 3, pod: 3},
		{name: "success and failure", agent: 0, pod: 137, wantWarning: true},
		{name: "failure and success", agent: 4, pod: 0, wantWarning: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := launched(twoSteps)
			tellAll(l, story(test.agent))
			before := ends(l)
			events := l.Observe(exited(l, test.pod), at(11*time.Second))
			if test.wantWarning != slices.Equal(types(events), []berth.EventType{berth.EventWarning}) || !test.wantWarning && len(events) > 0 {
				t.Errorf("the container's status made %v", events)
			}
			if diff := cmp.Diff(before, ends(l)); diff != "" {
				t.Errorf("the first did not stand (-first +then):\n%s", diff)
			}
			if again := l.Observe(exited(l, test.pod), at(12*time.Second)); len(again) > 0 || l.Current().EndSeen.IsZero() {
				t.Errorf("told again: %v; the end was seen at %s", again, l.Current().EndSeen)
			}
		})
	}
}

func TestADisagreementIsOfTheAttemptThatItIsAbout(t *testing.T) {
	l := launched(func(s *berth.TaskSpec) { twoSteps(s); s.Retries = 1 })
	late := exited(l, 0)
	tellAll(l, story(5))
	l.Admit(at(20 * time.Second))
	l.Seen("uid-2", false, at(21*time.Second))
	events := l.Observe(late, at(22*time.Second))
	if len(events) != 1 || events[0].Attempt != 1 || !strings.Contains(events[0].Message, "exit code 5") {
		t.Errorf("the events are %v, want one of attempt 1", events)
	}
	if l.Open() == nil || l.Open().Number != 2 || l.Task.State != berth.StateLaunching {
		t.Errorf("the second attempt is touched: %s", l.Task.State)
	}
}

// TestAgentsMayRepeatThemselves lets what an agent tells in order come several
// times, and anew from the begin, between reports of others and a crash: the
// life and its events are those of a story that was told once.
func TestAgentsMayRepeatThemselves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := story(rapid.IntRange(0, 2).Draw(t, "code"))
		plain, l := launched(twoSteps), launched(twoSteps)
		want := tellAll(plain, all)
		var got []berth.Event
		pod := l.Current().Pod
		for next := 0; next < len(all); {
			switch rapid.SampledFrom([]string{"next", "repeat", "pod", "attempt", "crash"}).Draw(t, "what") {
			case "next":
				got = append(got, l.Told(1, pod, all[next], at(10*time.Second))...)
				next++
			case "repeat":
				if next > 0 {
					got = append(got, l.Told(1, pod, all[rapid.IntRange(0, next-1).Draw(t, "which")], at(10*time.Second))...)
				}
			case "pod":
				got = append(got, l.Told(1, pod+"-1", rapid.SampledFrom(all).Draw(t, "which"), at(10*time.Second))...)
			case "attempt":
				got = append(got, l.Told(2, pod, rapid.SampledFrom(all).Draw(t, "which"), at(10*time.Second))...)
			case "crash":
				l = restored(t, l)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("events (-once +repeated):\n%s", diff)
		}
		if diff := cmp.Diff(restored(t, plain), restored(t, l)); diff != "" {
			t.Fatalf("life (-once +repeated):\n%s", diff)
		}
	})
}

// restored is what a process that begins anew finds in the store.
func restored(t interface{ Fatal(...any) }, l *berth.Life) *berth.Life {
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	out := &berth.Life{}
	if err := json.Unmarshal(data, out); err != nil {
		t.Fatal(err)
	}
	return out
}
