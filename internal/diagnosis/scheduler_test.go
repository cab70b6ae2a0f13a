package diagnosis

import (
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestParseScheduler(t *testing.T) {
	for _, test := range []struct {
		text    string
		nodes   int
		reasons []nodeReason
		counts  string
	}{
		{
			"0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {key: value}. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
			3, []nodeReason{{1, "Insufficient cpu"}, {2, "node(s) had untolerated taint {key: value}"}}, "1 Insufficient cpu, 2 untolerated taint key=value",
		},
		{
			"0/5 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling.",
			5, []nodeReason{{5, "pod has unbound immediate PersistentVolumeClaims"}}, "5 pod has unbound immediate PersistentVolumeClaims",
		},
		{
			"0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient nvidia.com/gpu, 2 reason of a plugin, with a comma.",
			2, []nodeReason{{1, "Insufficient cpu"}, {1, "Insufficient nvidia.com/gpu"}, {2, "reason of a plugin, with a comma"}}, "1 Insufficient cpu, 1 Insufficient nvidia.com/gpu, 2 reason of a plugin, with a comma",
		},
		{ // of 1.34
			"0/1 nodes are available: 1 Insufficient memory. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
			1, []nodeReason{{1, "Insufficient memory"}}, "1 Insufficient memory",
		},
		{
			"0/2 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable. no new claims to deallocate",
			2, []nodeReason{{1, "Insufficient memory"}, {1, "node(s) were unschedulable"}}, "1 Insufficient memory, 1 were unschedulable",
		},
		{"no nodes available to schedule pods", 0, []nodeReason{{0, "no nodes available to schedule pods"}}, "no nodes available to schedule pods"},
		{"", 0, nil, "no reason given"},
	} {
		m := parseScheduler(test.text)
		if m.nodes != test.nodes || m.counts() != test.counts {
			t.Errorf("%q: %d nodes, %q", test.text, m.nodes, m.counts())
		}
		if diff := cmp.Diff(test.reasons, m.reasons, cmp.AllowUnexported(nodeReason{})); diff != "" {
			t.Errorf("%q:\n%s", test.text, diff)
		}
	}
}

func FuzzScheduler(f *testing.F) {
	f.Add("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {key: value}. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.")
	f.Add("0/0 nodes are available: , 1 , 2 x.")
	f.Add("999999999/999999999 nodes are available:999999999 a, 999999999 b")
	f.Fuzz(func(t *testing.T, message string) {
		pod := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message},
		}}}
		finding := Pod(pod, "main", nil, true, Subject{}, testNow)
		if finding == nil {
			t.Fatal("a pod without a node is not explained")
		}
		if !utf8.ValidString(finding.Summary) || len(finding.Summary) > 1000 {
			t.Errorf("summary %q", finding.Summary)
		}
	})
}
