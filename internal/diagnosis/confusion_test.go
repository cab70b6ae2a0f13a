package diagnosis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// fine stands for no cause in a confusion matrix.
const fine berth.Cause = "(nothing wrong)"

// A perturbation changes a fixture in a way that changes nothing of its cause.
type perturbation struct {
	name   string
	change func(f *fixture, random *rand.Rand)
	hides  bool // it takes something away, so that Unknown, or nothing, is right as well
}

var perturbations = []perturbation{
	{name: "as it is", change: func(*fixture, *rand.Rand) {}},
	{name: "events in another order", change: func(f *fixture, random *rand.Rand) {
		random.Shuffle(len(f.Events), func(i, j int) { f.Events[i], f.Events[j] = f.Events[j], f.Events[i] })
	}},
	{name: "events twice", change: func(f *fixture, _ *rand.Rand) { f.Events = append(f.Events, f.Events...) }},
	{name: "conditions in another order", change: func(f *fixture, _ *rand.Rand) { slices.Reverse(f.Pod.Status.Conditions) }},
	{name: "a thousand conditions more", change: func(f *fixture, _ *rand.Rand) {
		for i := range 1000 {
			f.Pod.Status.Conditions = append(f.Pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(fmt.Sprintf("example.org/gate-%d", i)), Status: corev1.ConditionFalse, Reason: "NotYet", Message: "waiting"})
		}
	}},
	{name: "a thousand events of others", change: func(f *fixture, _ *rand.Rand) {
		for i := range 1000 {
			f.Events = append(f.Events, corev1.Event{Reason: "Failed", Message: fmt.Sprintf("Failed to pull image %d", i), InvolvedObject: corev1.ObjectReference{UID: "another"}, LastTimestamp: metav1.NewTime(testNow)})
		}
	}},
	{name: "an event in another language", change: func(f *fixture, _ *rand.Rand) {
		f.Events = append(f.Events, corev1.Event{Type: "Warning", Reason: "節点警告", Message: "この節点は忙しい。Der Knoten ist überlastet.", LastTimestamp: metav1.NewTime(testNow)})
	}},
	{name: "control characters and terminal escapes", change: func(f *fixture, _ *rand.Rand) {
		f.eachText(func(text string) string { return "\x1b[31m" + text + "\x1b[0m" })
	}},
	{name: "a title of the terminal", change: func(f *fixture, _ *rand.Rand) {
		f.eachText(func(text string) string { return "\x1b]0;owned\x07" + text + "\x00\u202e\x07" })
	}},
	{name: "no events", hides: true, change: func(f *fixture, _ *rand.Rand) { f.Events = nil }},
	{name: "cut events", hides: true, change: func(f *fixture, _ *rand.Rand) {
		for i := range f.Events {
			f.Events[i].Message = f.Events[i].Message[:len(f.Events[i].Message)/2]
		}
	}},
	{name: "translated", hides: true, change: func(f *fixture, _ *rand.Rand) {
		f.eachText(func(text string) string { return strings.Repeat("ü", len(text)/4) })
	}},
}

// eachText changes every message that others wrote.
func (f *fixture) eachText(change func(string) string) {
	apply := func(text *string) {
		if *text != "" {
			*text = change(*text)
		}
	}
	if f.Status != nil {
		apply(&f.Status.Message)
	}
	for i := range f.Events {
		apply(&f.Events[i].Message)
	}
	if f.Pod == nil {
		return
	}
	apply(&f.Pod.Status.Message)
	for i := range f.Pod.Status.Conditions {
		apply(&f.Pod.Status.Conditions[i].Message)
	}
	for _, statuses := range [][]corev1.ContainerStatus{f.Pod.Status.ContainerStatuses, f.Pod.Status.InitContainerStatuses} {
		for i := range statuses {
			if w := statuses[i].State.Waiting; w != nil {
				apply(&w.Message)
			}
			if t := statuses[i].State.Terminated; t != nil {
				apply(&t.Message)
			}
		}
	}
}

// copied is a fixture that may be changed.
func (f fixture) copied() fixture {
	c := f
	c.Pod, c.Status = f.Pod.DeepCopy(), f.Status.DeepCopy()
	c.Events = nil
	for i := range f.Events {
		c.Events = append(c.Events, *f.Events[i].DeepCopy())
	}
	return c
}

// No fixture, whatever is done to it that changes nothing, is taken for another
// cause: the matrix has its counts on the diagonal. With -v it is printed.
func TestNoCauseIsTakenForAnother(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	matrix := map[berth.Cause]map[berth.Cause]int{}
	count := 0
	for _, f := range fixtures(t) {
		want := f.cause()
		if want == "" {
			want = fine
		}
		for _, p := range perturbations {
			changed := f.copied()
			if f.Pod == nil {
				if f.Status == nil && p.name != "as it is" {
					continue // an error of the connection has no texts of others
				}
				changed.Pod = &corev1.Pod{}
				p.change(&changed, random)
				changed.Pod = nil
			} else {
				p.change(&changed, random)
			}
			got := fine
			if finding := changed.find(t); finding != nil {
				got = finding.Cause
			}
			if p.hides && got != want && (got == berth.CauseUnknown || got == fine || lessKnown(want, got)) {
				continue // it says less, and nothing wrong
			}
			if matrix[want] == nil {
				matrix[want] = map[berth.Cause]int{}
			}
			matrix[want][got]++
			count++
			if got != want {
				t.Errorf("%s, %s: is taken for %s", f.name, p.name, got)
			}
		}
	}
	t.Logf("%d observations\n%s", count, confusionTable(matrix))
}

// lessKnown reports whether a cause says the same as another with less detail,
// where the text that tells them apart is missing.
func lessKnown(want, got berth.Cause) bool {
	switch got {
	case berth.CauseRegistryUnreachable: // "the pull fails for a reason that is not in this table"
		return want == berth.CauseUnknown || want == berth.CauseImageNotFound || want == berth.CauseImageUnauthorized || want == berth.CauseArchitectureMismatch || want == berth.CauseInvalidImageName
	case berth.CauseExitedNonZero, berth.CauseSignalled: // the exit code is all that is left
		return true
	case berth.CauseAdmissionDenied: // "refused as invalid or against a rule"
		return true
	case berth.CauseForbidden:
		return true
	case berth.CauseClusterUnreachable: // by the HTTP status alone
		return want == berth.CauseAdmissionDenied
	case berth.CauseSandboxFailed, berth.CauseEvicted:
		return want == berth.CauseRuntimeClassNotFound || want == berth.CauseEvicted || want == berth.CauseInsufficientGPU
	}
	return false
}

// confusionTable writes a matrix: a line a cause, a column for each cause that
// it was taken for, numbered as the lines are.
func confusionTable(matrix map[berth.Cause]map[berth.Cause]int) string {
	causes := append(slices.Clone(berth.Causes), fine)
	causes = slices.DeleteFunc(causes, func(c berth.Cause) bool { return len(matrix[c]) == 0 })
	var out strings.Builder
	fmt.Fprintf(&out, "%-34s", "")
	for i := range causes {
		fmt.Fprintf(&out, "%4d", i+1)
	}
	for i, want := range causes {
		fmt.Fprintf(&out, "\n%2d %-31s", i+1, want)
		for _, got := range causes {
			if n := matrix[want][got]; n > 0 {
				fmt.Fprintf(&out, "%4d", n)
			} else {
				out.WriteString("   .")
			}
		}
	}
	return out.String()
}

func TestAPodWithVeryMuchToSayIsDiagnosedSoon(t *testing.T) {
	for _, f := range fixtures(t) {
		if f.Pod == nil || f.name != "InsufficientCPU" && f.name != "Unknown-failed" && f.name != "MountFailed" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			much := f.copied()
			for i := range 1000 {
				much.Pod.Status.Conditions = append(much.Pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(fmt.Sprintf("example.org/%d", i)), Message: strings.Repeat("x", 1000)})
			}
			for i := range 10_000 {
				much.Events = append(much.Events, corev1.Event{Reason: "Noise", Message: fmt.Sprintf("%d %s", i, strings.Repeat("y", 500)), LastTimestamp: metav1.NewTime(testNow.Add(-time.Duration(i) * time.Hour))})
			}
			began := time.Now()
			got := much.find(t)
			if took := time.Since(began); took > 5*time.Second { // it takes some 200 ms; what grows with the square takes minutes
				t.Errorf("it took %s", took)
			}
			if got == nil || got.Cause != f.cause() || len(got.Evidence) > maxEvidence {
				t.Errorf("%+v", got)
			}
		})
	}
}
