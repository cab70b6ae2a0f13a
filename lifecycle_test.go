package berth_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/berth-run/berth"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

func newLife(change func(*berth.TaskSpec)) *berth.Life {
	spec := berth.TaskSpec{Image: "docker.io/library/busybox:1.35", Infrastructure: "site-a"}
	if change != nil {
		change(&spec)
	}
	l, _ := berth.NewLife("d0task", "ann", "key", spec, t0)
	return l
}

// launched is a life whose first pod exists.
func launched(change func(*berth.TaskSpec)) *berth.Life {
	l := newLife(change)
	l.Admit(at(time.Second))
	l.Seen("uid-1", false, at(2*time.Second))
	return l
}

func observation(l *berth.Life) berth.Observation {
	a := l.Current()
	return berth.Observation{TaskID: l.Task.ID, Attempt: a.Number, Pod: a.Pod, UID: a.UID, Node: "n1"}
}

func running(l *berth.Life) berth.Observation {
	o := observation(l)
	o.StartedAt = at(3 * time.Second)
	return o
}

func exited(l *berth.Life, code int) berth.Observation {
	o := running(l)
	o.EndedAt = at(4 * time.Second)
	o.Outcome = &berth.Outcome{ExitCode: &code}
	if code != 0 {
		o.Outcome.Diagnosis = diagnosis(berth.CauseExitedNonZero)
	}
	return o
}

func diagnosis(cause berth.Cause) *berth.Diagnosis {
	return &berth.Diagnosis{Cause: cause, Summary: string(cause) + " happened", Evidence: []berth.Evidence{}}
}

func types(events []berth.Event) []berth.EventType {
	var out []berth.EventType
	for _, e := range events {
		out = append(out, e.Type)
	}
	return out
}

func TestATaskGoesFromQueuedToSucceeded(t *testing.T) {
	l, events := berth.NewLife("d0task", "ann", "key", berth.TaskSpec{Image: "busybox", Infrastructure: "site-a"}, t0)
	events = append(events, l.Admit(at(1))...)
	events = append(events, l.Seen("uid-1", false, at(2))...)
	events = append(events, l.Observe(running(l), at(3))...)
	events = append(events, l.Observe(exited(l, 0), at(4))...)
	want := []berth.EventType{berth.EventQueued, berth.EventAdmitted, berth.EventCreated, berth.EventScheduled, berth.EventStarted, berth.EventFinished}
	if diff := cmp.Diff(want, types(events)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if l.Task.State != berth.StateSucceeded || *l.Task.ExitCode != 0 || l.Task.ProcessExitCode() != 0 {
		t.Errorf("the task is %s, exit code %v", l.Task.State, l.Task.ExitCode)
	}
	if l.Settled() {
		t.Error("settled while the pod and its log are there")
	}
	l.LogsKept(1, berth.LogsComplete)
	gone := observation(l)
	gone.Gone = true
	l.Observe(gone, at(5))
	if !l.Settled() {
		t.Error("not settled though the log is kept and the pod is gone")
	}
}

func TestTheFirstTerminalOutcomeStands(t *testing.T) {
	l := launched(nil)
	l.Observe(exited(l, 3), at(4))
	if events := l.Observe(exited(l, 0), at(5)); len(events) != 0 {
		t.Errorf("a late observation made %v", types(events))
	}
	if l.Task.State != berth.StateFailed || *l.Task.ExitCode != 3 {
		t.Errorf("the task is %s, exit code %d", l.Task.State, *l.Task.ExitCode)
	}
}

func TestAPodThatVanishedIsLostAndNeverCreatedAgain(t *testing.T) {
	l := launched(nil)
	l.Observe(running(l), at(3))
	gone := observation(l)
	gone.Gone, gone.Diagnosis = true, diagnosis(berth.CauseDeletedExternally)
	l.Observe(gone, at(5))
	if l.Task.State != berth.StateLost || l.Task.ProcessExitCode() != berth.ExitNone {
		t.Errorf("the task is %s with exit %d", l.Task.State, l.Task.ProcessExitCode())
	}
	if events := l.Admit(at(6)); events != nil || len(l.Attempts) != 1 {
		t.Error("a lost task got another attempt")
	}
}

func TestAnIdempotentTaskThatIsLostIsTriedAgain(t *testing.T) {
	l := launched(func(s *berth.TaskSpec) { s.Idempotent = true })
	l.Observe(running(l), at(3))
	gone := observation(l)
	gone.Gone = true
	l.Observe(gone, at(5))
	if l.Task.State != berth.StateQueued {
		t.Fatalf("the task is %s", l.Task.State)
	}
	l.Admit(at(time.Minute))
	if l.Task.Attempt != 2 || l.Current().Pod != berth.PodName("d0task", 2, 0) {
		t.Errorf("attempt %d, pod %s", l.Task.Attempt, l.Current().Pod)
	}
}

func TestTheInfrastructuresBudgetCoversOnlyWhatNeverStarted(t *testing.T) {
	evicted := func(l *berth.Life, started bool) {
		o := observation(l)
		if started {
			o = running(l)
		}
		o.Outcome = &berth.Outcome{ByCluster: true, NeverStarted: !started, Diagnosis: diagnosis(berth.CauseEvicted)}
		l.Observe(o, at(5))
	}
	l := launched(nil)
	for attempt := 1; attempt <= berth.InfrastructureRetries; attempt++ {
		evicted(l, false)
		if l.Task.State != berth.StateQueued {
			t.Fatalf("after attempt %d the task is %s", attempt, l.Task.State)
		}
		l.Admit(at(time.Hour))
		l.Seen("uid", false, at(time.Hour))
	}
	evicted(l, false)
	if l.Task.State != berth.StateFailed {
		t.Errorf("after the budget the task is %s", l.Task.State)
	}
	l = launched(nil)
	evicted(l, true)
	if l.Task.State != berth.StateFailed {
		t.Errorf("evicted after its start, the task is %s", l.Task.State)
	}
}

func TestRetriesBeginAfterAPauseThatDoubles(t *testing.T) {
	l := launched(func(s *berth.TaskSpec) { s.Retries = 2 })
	for attempt, want := range []time.Duration{time.Second, 2 * time.Second} {
		l.Observe(exited(l, 1), at(10*time.Second))
		if l.Task.State != berth.StateQueued || !l.NotBefore.Equal(at(10*time.Second+want)) {
			t.Fatalf("after attempt %d: %s, not before %s", attempt+1, l.Task.State, l.NotBefore)
		}
		l.Admit(l.NotBefore)
		l.Seen("uid", false, at(0))
	}
	l.Observe(exited(l, 1), at(20*time.Second))
	if l.Task.State != berth.StateFailed {
		t.Errorf("after the last attempt the task is %s", l.Task.State)
	}
}

func TestCancelWinsOverCreateInFlight(t *testing.T) {
	l := newLife(nil)
	l.Admit(at(1))
	l.Cancel(at(2))
	if l.Task.State != berth.StateLaunching {
		t.Fatalf("the task is %s before the create's answer is known", l.Task.State)
	}
	l.Seen("uid-1", false, at(3))
	l.Observe(exited(l, 0), at(4))
	if l.Task.State != berth.StateCancelled || l.Task.ProcessExitCode() != berth.ExitCancelled {
		t.Errorf("the task is %s, exit %d", l.Task.State, l.Task.ProcessExitCode())
	}
}

func TestAQueuedTaskIsCancelledAtOnce(t *testing.T) {
	l := newLife(nil)
	l.Cancel(at(1))
	if l.Task.State != berth.StateCancelled || !l.Settled() {
		t.Errorf("the task is %s, settled %t", l.Task.State, l.Settled())
	}
	if l.Admit(at(2)) != nil {
		t.Error("a cancelled task was admitted")
	}
}

func TestAQuotaPutsATaskBackIntoTheQueue(t *testing.T) {
	l := newLife(nil)
	l.Admit(at(1))
	l.Withdraw(diagnosis(berth.CauseQuotaExceeded), at(2), at(2))
	if l.Task.State != berth.StateQueued || l.Task.Diagnosis.Cause != berth.CauseQuotaExceeded || len(l.Attempts) != 0 {
		t.Errorf("%s, %v, %d attempts", l.Task.State, l.Task.Diagnosis, len(l.Attempts))
	}
	l.Admit(at(3))
	if l.Task.Diagnosis != nil || l.Current().Pod != berth.PodName("d0task", 1, 0) {
		t.Errorf("admitted again: %v, pod %s", l.Task.Diagnosis, l.Current().Pod)
	}
}

func TestSomebodyElsesPodLeavesTheNextName(t *testing.T) {
	l := newLife(nil)
	l.Admit(at(1))
	seen := map[string]bool{l.Current().Pod: true}
	for range 12 {
		l.Rename(at(2))
		if seen[l.Current().Pod] {
			t.Fatalf("the name %s came again", l.Current().Pod)
		}
		seen[l.Current().Pod] = true
	}
}

func TestGracePeriods(t *testing.T) {
	grace := berth.Grace{Start: 10 * time.Minute, Pull: 30 * time.Second, Config: time.Minute}
	never := func(time.Duration) *berth.Diagnosis { return diagnosis(berth.CauseStartTimedOut) }
	tests := []struct {
		name     string
		patience berth.Patience
		want     time.Duration // from the stall, which begins a minute after the admission
	}{
		{"image not found", berth.PatiencePull, grace.Pull},
		{"missing ConfigMap", berth.PatienceConfig, grace.Config},
		{"unschedulable", berth.PatienceStart, grace.Start - 59*time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := launched(nil)
			o := observation(l)
			o.Diagnosis, o.Patience = diagnosis(berth.CauseUnknown), test.patience
			stalled := at(time.Minute)
			l.Observe(o, stalled)
			if l.Expire(grace, never, stalled.Add(test.want-time.Millisecond)); l.Task.State != berth.StateLaunching {
				t.Fatal("it failed too early")
			}
			l.Pause(time.Hour) // the cluster was out of reach
			if l.Expire(grace, never, stalled.Add(test.want)); l.Task.State != berth.StateLaunching {
				t.Fatal("the grace period went on while the cluster was out of reach")
			}
			if l.Expire(grace, never, stalled.Add(time.Hour+test.want)); l.Task.State != berth.StateFailed {
				t.Errorf("it did not fail: %s", l.Task.State)
			}
		})
	}
	t.Run("running", func(t *testing.T) {
		l := launched(nil)
		l.Observe(running(l), at(3))
		if deadline, _ := l.Deadline(grace); !deadline.IsZero() {
			t.Errorf("a running task has the deadline %s", deadline)
		}
	})
}

func TestARefusalThatMayPassIsWaitedForAsLongAsItsPatience(t *testing.T) {
	never := func(time.Duration) *berth.Diagnosis { return nil }
	for patience, want := range map[berth.Patience]berth.TaskState{
		berth.PatienceConfig: berth.StateFailed, berth.PatienceStart: berth.StateLaunching, berth.PatienceForever: berth.StateLaunching,
		berth.PatienceLaunch: berth.StateFailed, berth.PatiencePull: berth.StateFailed,
	} {
		l := newLife(nil)
		l.Admit(at(0))
		for minute := range 60 { // each try is refused again
			l.Stall(diagnosis(berth.CauseServiceAccountNotFound), patience, at(time.Duration(minute)*time.Minute))
			l.Expire(berth.DefaultGrace, never, at(time.Duration(minute)*time.Minute+time.Second))
		}
		if l.Task.State != want {
			t.Errorf("with patience %d the task is %s, want %s", patience, l.Task.State, want)
		}
	}
}

func TestAHopelessStallFailsAtOnce(t *testing.T) {
	l := launched(nil)
	o := observation(l)
	o.Diagnosis, o.Patience = diagnosis(berth.CauseInvalidImageName), berth.PatienceNone
	l.Observe(o, at(5))
	if l.Task.State != berth.StateFailed || l.Task.Diagnosis.Cause != berth.CauseInvalidImageName {
		t.Errorf("%s, %v", l.Task.State, l.Task.Diagnosis)
	}
}

func TestADiagnosisIsToldOnceAndCleared(t *testing.T) {
	l := launched(nil)
	o := observation(l)
	o.Diagnosis = diagnosis(berth.CauseInsufficientCPU)
	first := types(l.Observe(o, at(5)))
	again := types(l.Observe(o, at(6)))
	o.Diagnosis = nil
	cleared := types(l.Observe(o, at(7)))
	want := [][]berth.EventType{{berth.EventScheduled, berth.EventDiagnosed}, nil, {berth.EventCleared}}
	if diff := cmp.Diff(want, [][]berth.EventType{first, again, cleared}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Events that could not be read, say, are found out about after the first diagnosis.
func TestEvidenceFromANewSourceIsKeptAndNotToldAgain(t *testing.T) {
	l := launched(nil)
	o := observation(l)
	stalled := func(evidence ...berth.Evidence) []berth.Event {
		o.Diagnosis = diagnosis(berth.CauseInsufficientCPU)
		o.Diagnosis.Evidence = evidence
		return l.Observe(o, at(5*time.Second))
	}
	condition := berth.Evidence{Source: "pod condition PodScheduled", Text: "1 Insufficient cpu"}
	stalled(condition)
	before := l.Task.Diagnosis
	if events := stalled(berth.Evidence{Source: condition.Source, Text: "2 Insufficient cpu"}); len(events) != 0 || l.Task.Diagnosis != before {
		t.Errorf("another text of the same source: %v, %+v", events, l.Task.Diagnosis)
	}
	if events := stalled(condition, berth.Evidence{Source: "berth", Text: "events may not be read"}); len(events) != 0 || len(l.Task.Diagnosis.Evidence) != 2 || len(before.Evidence) != 1 {
		t.Errorf("another source: %v, %+v", events, l.Task.Diagnosis)
	}
}

func TestWhatIsWaitedForIsToldUntilTheProgramRuns(t *testing.T) {
	l := launched(nil)
	o := observation(l)
	o.Pulling, o.Waits = true, "node n1 is fetching image busybox"
	if events := types(l.Observe(o, at(3*time.Second))); !slices.Contains(events, berth.EventPulling) || l.Task.Reason == nil || *l.Task.Reason != o.Waits {
		t.Errorf("%v, %v", events, l.Task.Reason)
	}
	if events := l.Observe(o, at(4*time.Second)); len(events) != 0 {
		t.Errorf("told twice: %v", events)
	}
	l.Observe(running(l), at(5*time.Second))
	if l.Task.Reason != nil {
		t.Errorf("it runs: %s", *l.Task.Reason)
	}
	l.Observe(exited(l, 0), at(6*time.Second))
	if *l.Task.Reason != "Completed" {
		t.Errorf("it ended: %s", *l.Task.Reason)
	}
}

func TestOurOwnDeletionOfACancelledPodIsNotBlamedOnOthers(t *testing.T) {
	l := launched(nil)
	l.Cancel(at(3 * time.Second))
	o := observation(l)
	o.Diagnosis = diagnosis(berth.CauseDeletedExternally)
	if events := l.Observe(o, at(4*time.Second)); slices.Contains(types(events), berth.EventDiagnosed) || l.Task.Diagnosis != nil {
		t.Errorf("%v, %+v", types(events), l.Task.Diagnosis)
	}
}

func TestTheJSONOfATaskIsTheContract(t *testing.T) {
	data, err := json.Marshal(newLife(nil).Task)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"id", "name", "state", "infrastructure", "image", "attempt", "exitCode", "result", "diagnosis", "createdAt", "startedAt", "finishedAt", "usage"} {
		if _, ok := got[field]; !ok {
			t.Errorf("the field %q is missing; absent values are null", field)
		}
	}
	if got["createdAt"] != "2026-01-02T03:04:05Z" {
		t.Errorf("createdAt is %v", got["createdAt"])
	}
}

// TestPromisesHoldInAnyOrder lets observations, cancels, crashes and repeats
// come in any order: a task ends once, and a known pod is never made again.
func TestPromisesHoldInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLife(func(s *berth.TaskSpec) {
			s.Retries = rapid.IntRange(0, 2).Draw(t, "retries")
			s.Idempotent = rapid.Bool().Draw(t, "idempotent")
		})
		now := t0
		var ended berth.TaskState
		terminal := 0
		uids := 0
		take := func(events []berth.Event) {
			for _, e := range events {
				switch e.Type {
				case berth.EventFinished, berth.EventFailed, berth.EventStopped, berth.EventLost:
					terminal++
				}
			}
		}
		observe := func(change func(*berth.Observation)) {
			if l.Current() == nil {
				return
			}
			n := rapid.IntRange(1, len(l.Attempts)).Draw(t, "attempt")
			a := l.ByNumber(n)
			uid := a.UID
			if uid == "" {
				uids++
				uid = "uid" + string(rune('a'+uids%26))
			}
			o := berth.Observation{TaskID: l.Task.ID, Attempt: n, Pod: a.Pod, UID: uid, Node: "n1"}
			change(&o)
			take(l.Observe(o, now))
		}
		code := func() *int { c := rapid.IntRange(0, 3).Draw(t, "code"); return &c }
		t.Repeat(map[string]func(*rapid.T){
			"admit":    func(*rapid.T) { take(l.Admit(now)) },
			"withdraw": func(*rapid.T) { take(l.Withdraw(diagnosis(berth.CauseQuotaExceeded), now, now)) },
			"refuse":   func(*rapid.T) { take(l.Refuse(diagnosis(berth.CauseAdmissionDenied), now)) },
			"rename":   func(*rapid.T) { take(l.Rename(now)) },
			"cancel":   func(*rapid.T) { take(l.Cancel(now)) },
			"never":    func(*rapid.T) { take(l.Never(now)) },
			"lose": func(*rapid.T) {
				if a := l.Open(); a != nil && a.UID == "" {
					take(l.Lose(diagnosis(berth.CauseDeletedExternally), now))
				}
			},
			"seen":    func(*rapid.T) { observe(func(*berth.Observation) {}) },
			"running": func(*rapid.T) { observe(func(o *berth.Observation) { o.StartedAt = now }) },
			"stalled": func(*rapid.T) {
				observe(func(o *berth.Observation) {
					o.Diagnosis, o.Patience = diagnosis(berth.CauseImageNotFound), berth.Patience(rapid.IntRange(0, 4).Draw(t, "patience"))
				})
			},
			"exited": func(*rapid.T) {
				observe(func(o *berth.Observation) {
					o.StartedAt, o.Outcome = now, &berth.Outcome{ExitCode: code()}
					if *o.Outcome.ExitCode != 0 {
						o.Outcome.Diagnosis = diagnosis(berth.CauseExitedNonZero)
					}
				})
			},
			"evicted": func(*rapid.T) {
				observe(func(o *berth.Observation) {
					o.Outcome = &berth.Outcome{ByCluster: true, Diagnosis: diagnosis(berth.CauseEvicted)}
				})
			},
			"gone": func(*rapid.T) { observe(func(o *berth.Observation) { o.Gone = true }) },
			"expire": func(*rapid.T) {
				take(l.Expire(berth.DefaultGrace, func(time.Duration) *berth.Diagnosis { return diagnosis(berth.CauseStartTimedOut) }, now))
			},
			"wait": func(*rapid.T) { now = now.Add(time.Minute) },
			"crash": func(*rapid.T) {
				data, err := json.Marshal(l)
				if err != nil {
					t.Fatal(err)
				}
				restored := &berth.Life{}
				if err := json.Unmarshal(data, restored); err != nil {
					t.Fatal(err)
				}
				l = restored
			},
			"": func(*rapid.T) {
				open := 0
				for i := range l.Attempts {
					if l.Attempts[i].Outcome == nil {
						open++
					}
				}
				if open > 1 || open == 1 && l.Open() == nil {
					t.Fatalf("%d attempts are not known to have ended", open)
				}
				if l.Task.State.Terminal() {
					if open > 0 {
						t.Fatalf("%s with an open attempt", l.Task.State)
					}
					if ended != "" && ended != l.Task.State {
						t.Fatalf("it ended as %s and then as %s", ended, l.Task.State)
					}
					ended = l.Task.State
				}
				if terminal > 1 || (terminal == 1) != l.Task.State.Terminal() {
					t.Fatalf("%d terminal events in state %s", terminal, l.Task.State)
				}
				if l.Task.State == berth.StateSucceeded && !l.Current().Outcome.Success() {
					t.Fatal("succeeded without a success")
				}
				if n := len(l.Attempts); n > 1+berth.InfrastructureRetries+2+berth.InfrastructureRetries {
					t.Fatalf("%d attempts", n)
				}
			},
		})
	})
}

func TestACancelledTaskIsNotToldThatItsPodWasDeletedByOthers(t *testing.T) {
	l := newLife(nil)
	l.Admit(at(1))
	l.Seen("uid-1", false, at(2))
	l.Cancel(at(3))
	deleted := berth.Observation{TaskID: l.Task.ID, Attempt: 1, Pod: l.Open().Pod, UID: "uid-1", Diagnosis: &berth.Diagnosis{Cause: berth.CauseDeletedExternally, Summary: "somebody else deleted it"}}
	if events := l.Observe(deleted, at(4)); len(events) != 0 || l.Task.Diagnosis != nil {
		t.Errorf("it is told %+v, with %+v", l.Task.Diagnosis, events)
	}
}

func TestTimesThatLieAheadAreBroughtBack(t *testing.T) {
	l := launched(nil)
	l.Current().StallFrom = at(0)
	l.NotBefore = at(0)
	before := at(-24 * time.Hour)
	l.NotAhead(before)
	if a := l.Current(); !a.GraceFrom.Equal(before) || !a.StallFrom.Equal(before) {
		t.Errorf("grace counts from %s and %s", a.GraceFrom, a.StallFrom)
	}
	if want := before.Add(5 * time.Minute); !l.NotBefore.Equal(want) {
		t.Errorf("a retry waits until %s, want %s", l.NotBefore, want)
	}
	l = launched(nil)
	grace := l.Current().GraceFrom
	if l.NotAhead(at(time.Hour)); !l.Current().GraceFrom.Equal(grace) || !l.Current().StallFrom.IsZero() || !l.NotBefore.IsZero() {
		t.Errorf("what lies behind was moved: %+v", l.Current())
	}
}

// What refused a pod says nothing of it once it is there.
func TestACreatedPodHasNotTheDiagnosisOfItsCreate(t *testing.T) {
	l := newLife(nil)
	l.Admit(at(1))
	l.Stall(diagnosis(berth.CauseForbidden), berth.PatiencePull, at(2))
	events := l.Seen("uid-1", false, at(3))
	if diff := cmp.Diff([]berth.EventType{berth.EventCreated, berth.EventCleared}, types(events)); diff != "" || l.Task.Diagnosis != nil {
		t.Errorf("diagnosis %+v, events (-want +got):\n%s", l.Task.Diagnosis, diff)
	}
	if deadline, limit := l.Deadline(berth.DefaultGrace); limit != berth.DefaultGrace.Start {
		t.Errorf("its patience ends at %s, after %s", deadline, limit)
	}
}
