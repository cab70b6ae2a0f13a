package berth

import (
	"strings"
	"testing"
	"time"
)

// used is a task whose attempt ran for a time; open: it still does.
func usedFor(ran time.Duration, open bool) *Life {
	l := &Life{Task: Task{ID: "t", State: StateRunning, Attempt: 1, Spec: TaskSpec{CPU: "2", Memory: "1Gi"}}, Attempts: []Attempt{{Number: 1, StartedAt: began}}}
	if !open {
		l.Task.State = StateSucceeded
		l.Attempts[0].Outcome, l.Attempts[0].EndedAt = &Outcome{ExitCode: of(0)}, began.Add(ran)
	}
	return l
}

// Nothing is ever shown as zero: where there are no figures it says why.
func TestWhyThereAreNoFigures(t *testing.T) {
	const grant = "the kubeconfig may not read what pods use"
	queued := &Life{Task: Task{State: StateQueued}}
	cancelled := &Life{Task: Task{State: StateCancelled}}
	launching := &Life{Task: Task{State: StateLaunching, Attempt: 1}, Attempts: []Attempt{{Number: 1}}}
	noted := usedFor(time.Hour, false)
	noted.Attempts[0].Usage = &AttemptUsage{Unmeasured: grant}
	for name, tt := range map[string]struct {
		life       *Life
		number     int
		unmeasured string
		want       string
	}{
		"queued":                              {queued, 0, "", "it has not started yet"},
		"being launched":                      {launching, 1, "", "it has not started yet"},
		"cancelled in the queue":              {cancelled, 0, "", "it used nothing"},
		"too short":                           {usedFor(1200*time.Millisecond, false), 1, "", "it ended after 1.2s: too short to be sampled (every 15s)"},
		"too short, and not granted":          {usedFor(1200*time.Millisecond, false), 1, grant, "too short"},
		"not granted while it runs":           {usedFor(0, true), 1, grant, grant},
		"not granted when it ran":             {noted, 1, "", grant},
		"not sampled yet":                     {usedFor(0, true), 1, "", "has run for 20s and was not sampled yet"},
		"nobody was there while it ran":       {usedFor(time.Hour, false), 1, "", "none ran for long enough"},
		"nobody was there, and granted since": {usedFor(time.Hour, false), 1, "", "samples are taken while a berth command or server runs"},
	} {
		m := NewTaskMetrics(tt.life, tt.number, nil, nil, tt.unmeasured, began.Add(20*time.Second))
		if m.Note == nil || !strings.Contains(*m.Note, tt.want) {
			t.Errorf("%s: got %v, want %q", name, m.Note, tt.want)
		}
		if m.Source != nil || m.CPU.Seconds != nil || m.CPU.Mean != nil || m.CPU.Peak != nil || m.Memory.Peak != nil || m.Memory.Mean != nil || len(m.Samples) != 0 || len(m.Advice) != 0 {
			t.Errorf("%s: there are figures: %+v", name, m)
		}
	}
}

func TestFiguresAgainstWhatWasAskedFor(t *testing.T) {
	meter := metered(rate(15, 0.5, 100*mi), rate(30, 1.5, 300*mi))
	m := NewTaskMetrics(usedFor(0, true), 1, &meter, []Sample{meter.Last}, "", after(40))
	if *m.CPU.Request != 2 || *m.CPU.Limit != 2 || *m.Memory.Request != gi || *m.Memory.Limit != gi {
		t.Errorf("asked for: %+v %+v", m.CPU, m.Memory)
	}
	if *m.CPU.Seconds != 30 || *m.CPU.Mean != 1 || *m.CPU.Peak != 1.5 || *m.Memory.Peak != 300*mi || *m.Memory.Mean != 200*mi || *m.Source != UsageFromCluster || m.Note != nil {
		t.Errorf("used: %+v %+v, %v", m.CPU, m.Memory, m.Note)
	}
}

func TestTheAgentsTotalStandsBesideTheSamples(t *testing.T) {
	meter := metered(rate(15, 0.5, 100*mi), rate(30, 1.5, 300*mi))
	life := usedFor(40*time.Second, false)
	source := UsageFromAgent
	life.Attempts[0].Usage = &AttemptUsage{Usage: Usage{CPUSeconds: of(44.0), MemoryPeakBytes: of(int64(500 * mi)), Source: &source}}
	m := NewTaskMetrics(life, 1, &meter, []Sample{meter.Last}, "", after(999))
	if *m.CPU.Seconds != 44 || *m.CPU.Mean != 1.1 || *m.Memory.Peak != 500*mi || *m.Memory.WorkingSet != 300*mi || *m.Source != UsageFromAgent {
		t.Errorf("%+v %+v", m.CPU, m.Memory)
	}
	m = NewTaskMetrics(life, 1, nil, nil, "", after(999))
	if *m.CPU.Seconds != 44 || m.CPU.Peak != nil || m.Note == nil || !strings.Contains(*m.Note, "no sample was taken") {
		t.Errorf("without samples: %+v, %v", m.CPU, m.Note)
	}
}

// What an attempt used is the task's until the next attempt begins.
func TestUsageIsOfTheLastAttempt(t *testing.T) {
	l, _ := NewLife("t", "ann", "k", TaskSpec{Image: "busybox", Infrastructure: "here", Retries: 1}, began)
	l.Admit(began)
	l.Seen("uid", false, began)
	pod := l.Current().Pod
	l.Observe(Observation{Attempt: 1, Pod: pod, UID: "uid", StartedAt: began}, began)
	source := UsageFromAgent
	l.Observe(Observation{Attempt: 1, Pod: pod, UID: "uid", Outcome: &Outcome{
		ExitCode: of(1), Diagnosis: &Diagnosis{Cause: CauseExitedNonZero}, Usage: &AttemptUsage{Usage: Usage{CPUSeconds: of(3.0), Source: &source}},
	}}, began)
	if l.Task.State != StateQueued || *l.Task.Usage.CPUSeconds != 3 {
		t.Fatalf("%s, %+v", l.Task.State, l.Task.Usage)
	}
	l.Measured(1, AttemptUsage{Usage: Usage{CPUSeconds: of(2.0)}})
	if *l.Attempts[0].Usage.CPUSeconds != 3 {
		t.Error("what was measured took the place of what the agent counted")
	}
	l.Admit(began.Add(time.Hour))
	if l.Task.Usage != (Usage{}) {
		t.Errorf("the next attempt begins with %+v", l.Task.Usage)
	}
	l.Measured(2, AttemptUsage{Usage: Usage{CPUSeconds: of(2.0)}})
	if l.Task.Usage != (Usage{}) || l.Attempts[1].Usage != nil {
		t.Error("an attempt that runs has its total")
	}
}
