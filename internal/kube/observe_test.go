package kube

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/diagnosis"
)

func TestTheMainContainerDecidesHowAnAttemptEnded(t *testing.T) {
	now := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	exited := func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, StartedAt: now, FinishedAt: now}}
	}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
	ten := int64(10)
	tests := []struct {
		name         string
		state        corev1.ContainerState
		phase        corev1.PodPhase
		reason       string
		grace        *int64
		node         string
		gone         bool
		ended        bool
		unknown      bool
		neverStarted bool
		byCluster    bool
	}{
		{name: "running", state: running, phase: corev1.PodRunning, node: "n"},
		{name: "ended while the pod still runs", state: exited(0, "Completed"), phase: corev1.PodRunning, node: "n", ended: true},
		{name: "its time is over, and it has not been ended yet", state: running, phase: corev1.PodFailed, reason: "DeadlineExceeded", node: "n"},
		{name: "its time is over, and it was ended", state: exited(137, "Error"), phase: corev1.PodFailed, reason: "DeadlineExceeded", node: "n", ended: true},
		{name: "its time was over, and the pod is gone", state: running, phase: corev1.PodFailed, reason: "DeadlineExceeded", node: "n", gone: true, ended: true},
		{name: "evicted, and it has not been ended yet", state: running, phase: corev1.PodFailed, reason: "Evicted", node: "n"},
		{name: "evicted, and it was ended", state: exited(137, "Error"), phase: corev1.PodFailed, reason: "Evicted", node: "n", ended: true},
		{name: "the kubelet lost it", state: exited(137, "ContainerStatusUnknown"), phase: corev1.PodFailed, node: "n", ended: true, unknown: true},
		{name: "gone while it ran", state: running, phase: corev1.PodRunning, node: "n", gone: true},
		{name: "deleted before it had a node", state: waiting, phase: corev1.PodPending, gone: true, ended: true, neverStarted: true, byCluster: true},
		{name: "deleted before it started, as its kubelet says", state: waiting, phase: corev1.PodPending, node: "n", grace: &ten, gone: true, ended: true, neverStarted: true, byCluster: true},
		{name: "deleted by force before it was seen to start", state: waiting, phase: corev1.PodPending, node: "n", gone: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "berth-a-1", DeletionGracePeriodSeconds: test.grace},
				Spec:       corev1.PodSpec{NodeName: test.node, Containers: []corev1.Container{{Name: MainContainer}}},
				Status:     corev1.PodStatus{Phase: test.phase, Reason: test.reason, ContainerStatuses: []corev1.ContainerStatus{{Name: MainContainer, State: test.state}}},
			}
			got, _ := outcome(pod, mainStatus(pod), nil, test.gone)
			if (got != nil) != test.ended {
				t.Fatalf("outcome %+v, ended should be %t", got, test.ended)
			}
			want := berth.Outcome{Unknown: test.unknown, NeverStarted: test.neverStarted, ByCluster: test.byCluster}
			if got != nil && (got.Unknown != want.Unknown || got.NeverStarted != want.NeverStarted || got.ByCluster != want.ByCluster) {
				t.Errorf("outcome %+v, want %+v", got, want)
			}
		})
	}
}

// A kubelet that lost a container may make it once more, whatever it was told.
func TestAContainerThatIsMadeOnceMoreHasNotEnded(t *testing.T) {
	began := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	for _, state := range []corev1.ContainerState{
		{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		{Running: &corev1.ContainerStateRunning{StartedAt: began}},
	} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "berth-a-1", UID: "u"},
			Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: MainContainer, Image: "i"}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &began, ContainerStatuses: []corev1.ContainerStatus{{
				Name: MainContainer, State: state, RestartCount: 1,
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137}},
			}}},
		}
		if got := NewDriver(&Client{}, berth.InfrastructureConfig{}, "i").observe(pod, false); got.Outcome != nil || got.StartedAt.IsZero() {
			t.Errorf("%+v: started at %v, outcome %+v", state, got.StartedAt, got.Outcome)
		}
	}
}

// A kubelet removes the containers of a pod that it evicts, at times before it
// has looked how they ended. What it ran is not run again as if it had never been.
func TestAnEvictedProgramWhoseContainerIsGoneWasRunning(t *testing.T) {
	began := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
	unknown := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137}}
	for _, said := range []corev1.ContainerStatus{
		{Name: MainContainer, State: waiting, LastTerminationState: unknown, RestartCount: 1},
		{Name: MainContainer, State: unknown},
	} {
		for message, own := range map[string]bool{
			"Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ": true,
			"The node was low on resource: memory. ":                                        false,
		} {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "berth-a-1", UID: "u"},
				Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: MainContainer, Image: "i"}}},
				Status:     corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: message, StartTime: &began, ContainerStatuses: []corev1.ContainerStatus{said}},
			}
			got := NewDriver(&Client{}, berth.InfrastructureConfig{}, "i").observe(pod, false)
			switch o := got.Outcome; {
			case o == nil || o.NeverStarted || o.Unknown == own || o.ByCluster == own || got.StartedAt.IsZero():
				t.Errorf("%s: started at %v, outcome %+v", message, got.StartedAt, o)
			case o.Diagnosis == nil || o.Diagnosis.Cause != berth.CauseEvicted:
				t.Errorf("%s: diagnosis %+v", message, o.Diagnosis)
			case own && (o.ExitCode == nil || *o.ExitCode != 137), !own && o.ExitCode != nil:
				t.Errorf("%s: exit code %v", message, o.ExitCode)
			}
		}
	}
}

// Of a container whose making was interrupted the program never ran; of one
// whose start was interrupted it may have.
func TestAnInterruptedStartCountsAsAStart(t *testing.T) {
	ended := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	for message, began := range map[string]bool{
		"failed to create containerd task: failed to create shim task: context canceled: unknown": false,
		`failed to start containerd task "5e7e28d9": context canceled: unknown`:                   true,
	} {
		state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: message, StartedAt: metav1.Unix(0, 0), FinishedAt: ended}}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "berth-a-1", UID: "u"},
			Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: MainContainer, Image: "i"}}},
			Status:     corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: MainContainer, State: state}}},
		}
		got := NewDriver(&Client{}, berth.InfrastructureConfig{}, "i").observe(pod, false)
		if got.Outcome == nil || got.Outcome.NeverStarted == began || !got.Outcome.ByCluster || got.StartedAt.IsZero() == began {
			t.Errorf("%s: started at %v, outcome %+v", message, got.StartedAt, got.Outcome)
		}
	}
}

// Why a program failed behind a proxy is shown at once; that the attempt has
// ended when the sidecar has told what it counted.
func TestWhyAProgramFailedIsShownBeforeItsSidecarEnds(t *testing.T) {
	now := metav1.NewTime(time.Now())
	status := func(name string, state corev1.ContainerState) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: state}
	}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	report := agent.ProxyReport{SentBytes: 7, Connections: 1}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: now, FinishedAt: now, Message: string(report.Encode())}}
	for code, cause := range map[int32]berth.Cause{3: berth.CauseExitedNonZero, 0: ""} {
		exited := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", StartedAt: now, FinishedAt: now}}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "berth-a-1", UID: "u"},
			Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: MainContainer, Image: "i"}}},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status(MainContainer, exited)},
				InitContainerStatuses: []corev1.ContainerStatus{status(diagnosis.ProxyContainer, runs)},
			},
		}
		driver := NewDriver(&Client{}, berth.InfrastructureConfig{}, "i")
		got := driver.observe(pod, false)
		if got.Outcome != nil || (got.Diagnosis != nil) != (cause != "") || got.Diagnosis != nil && (got.Diagnosis.Cause != cause || got.Patience != berth.PatienceForever) {
			t.Errorf("exit %d, and the sidecar runs: %+v, %+v", code, got.Outcome, got.Diagnosis)
		}
		pod.Status.InitContainerStatuses[0].State = ended
		got = driver.observe(pod, false)
		if got.Outcome == nil || *got.Outcome.ExitCode != int(code) || got.Outcome.Network == nil || got.Outcome.Network.SentBytes != 7 {
			t.Errorf("exit %d, and the sidecar has ended: %+v", code, got.Outcome)
		}
	}
}

// A kubelet may start a program though the sidecar that mounts the shared
// filesystem has ended, by what its runtime still says of that. What the program
// wrote is nowhere then, however well it ended.
func TestAProgramThatRanWithoutItsSharedFilesystemFailed(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds int) metav1.Time { return metav1.NewTime(began.Add(time.Duration(seconds) * time.Second)) }
	ended := func(from, to int, code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, StartedAt: at(from), FinishedAt: at(to), Message: "NOAUTH Authentication required."}}
	}
	runs := func(from int) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(from)}}
	}
	hook := corev1.Event{Reason: "FailedPostStartHook", LastTimestamp: at(2)}
	for name, is := range map[string]struct {
		now, before corev1.ContainerState
		restarts    int32
		events      []corev1.Event
		ran         bool // without it
	}{
		"the sidecar ended before":                            {now: ended(0, 1, 1), ran: true},
		"the sidecar ended before, and runs again":            {now: runs(4), before: ended(0, 1, 1), restarts: 1, ran: true},
		"the sidecar failed in the same second, by an event":  {now: ended(0, 2, 1), events: []corev1.Event{hook}, ran: true},
		"the sidecar ended in the same second, as it does":    {now: ended(0, 2, 1)},
		"the second try mounted":                              {now: runs(1), before: ended(0, 1, 1), restarts: 1, events: []corev1.Event{hook}},
		"the second try mounted, and ended after the program": {now: ended(1, 4, 143), before: ended(0, 1, 1), restarts: 1, events: []corev1.Event{hook}},
		"the second try mounted, and ended well":              {now: ended(1, 4, 0), before: ended(0, 1, 1), restarts: 1, events: []corev1.Event{hook}},
		"the sidecar ended after the program":                 {now: ended(0, 4, 143)},
		"the sidecar runs":                                    {now: runs(0)},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "berth-a-1", UID: "a"},
				Spec: corev1.PodSpec{
					NodeName: "n", Containers: []corev1.Container{{Name: MainContainer}},
					InitContainers: []corev1.Container{{Name: diagnosis.DFSContainer, Command: []string{"sh", "-c", mountScript, diagnosis.DFSContainer, "redis://redis.example:6379/1", dfsShare}}},
				},
				Status: corev1.PodStatus{
					Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{{Name: diagnosis.DFSContainer, State: is.now, LastTerminationState: is.before, RestartCount: is.restarts}},
					ContainerStatuses: []corev1.ContainerStatus{{Name: MainContainer, State: ended(2, 3, 0)}},
				},
			}
			finding := diagnosis.Pod(pod, MainContainer, is.events, true, diagnosis.Subject{}, began.Add(time.Minute))
			got, _ := outcome(pod, mainStatus(pod), finding, false)
			if got.Success() == is.ran || *got.ExitCode != 0 {
				t.Fatalf("succeeded: %v, %+v", got.Success(), got)
			}
			if is.ran && (got.Diagnosis.Cause != berth.CauseMountFailed || !strings.Contains(got.Diagnosis.Summary, "does not accept the login")) {
				t.Errorf("%+v", got.Diagnosis)
			}
		})
	}
}
