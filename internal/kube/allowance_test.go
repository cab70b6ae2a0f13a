package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// list makes a ResourceList of names and quantities in turn.
func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func quotaOf(hard corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) allowance {
	return allowance{quotas: []corev1.ResourceQuota{{ObjectMeta: metav1.ObjectMeta{Name: "team"}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}}}
}

func rangeOf(items ...corev1.LimitRangeItem) allowance {
	return allowance{ranges: []corev1.LimitRange{{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: corev1.LimitRangeSpec{Limits: items}}}}
}

func TestAPodIsComparedWithTheLimitsOfItsNamespace(t *testing.T) {
	const container, pod = corev1.LimitTypeContainer, corev1.LimitTypePod
	defaults := rangeOf(corev1.LimitRangeItem{Type: container, Default: list("cpu", "1"), DefaultRequest: list("cpu", "100m")})
	both := quotaOf(list("limits.cpu", "4"))
	both.ranges = defaults.ranges
	breach := func(kind diagnosis.BreachKind, rule, name, asked, bound string) []diagnosis.Breach {
		return []diagnosis.Breach{{Kind: kind, Rule: rule, Resource: name, Asked: asked, Bound: bound}}
	}
	tests := []struct {
		name   string
		limits allowance
		spec   berth.TaskSpec
		want   []diagnosis.Breach
	}{
		{"nothing is limited", allowance{}, berth.TaskSpec{CPU: "400"}, nil},
		{"as much as a LimitRange allows", rangeOf(corev1.LimitRangeItem{Type: container, Max: list("cpu", "2")}), berth.TaskSpec{CPU: "2"}, nil},
		{"more than a LimitRange allows", rangeOf(corev1.LimitRangeItem{Type: container, Max: list("cpu", "2")}), berth.TaskSpec{CPU: "2.5"}, breach(diagnosis.BreachMax, "small", "cpu", "2500m", "2")},
		{"less than a LimitRange wants", rangeOf(corev1.LimitRangeItem{Type: container, Min: list("memory", "1Gi")}), berth.TaskSpec{Memory: "64Mi"}, breach(diagnosis.BreachMin, "small", "memory", "64Mi", "1Gi")},
		{"more than a pod may have", rangeOf(corev1.LimitRangeItem{Type: pod, Max: list("memory", "1Gi")}), berth.TaskSpec{Memory: "2Gi"}, breach(diagnosis.BreachMax, "small", "memory", "2Gi", "1Gi")},
		{"a LimitRange of volumes says nothing of pods", rangeOf(corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Max: list("storage", "1Gi")}), berth.TaskSpec{EphemeralStorage: "2Gi"}, nil},
		{"a default that is not said is given", rangeOf(corev1.LimitRangeItem{Type: container, Max: list("cpu", "2"), Default: list("cpu", "2")}), berth.TaskSpec{}, nil},

		{"as much as the whole quota", quotaOf(list("requests.cpu", "2")), berth.TaskSpec{CPU: "2"}, nil},
		{"more than the whole quota", quotaOf(list("requests.cpu", "2")), berth.TaskSpec{CPU: "3"}, breach(diagnosis.BreachQuota, "team", "requests.cpu", "3", "2")},
		{"a quota by its short name", quotaOf(list("memory", "1Gi")), berth.TaskSpec{Memory: "2Gi"}, breach(diagnosis.BreachQuota, "team", "memory", "2Gi", "1Gi")},
		{"more GPUs than there are", quotaOf(list("requests.nvidia.com/gpu", "1")), berth.TaskSpec{GPU: 2}, breach(diagnosis.BreachQuota, "team", "requests.nvidia.com/gpu", "2", "1")},
		{"no pods at all", quotaOf(list("pods", "0")), berth.TaskSpec{}, breach(diagnosis.BreachQuota, "team", "pods", "1", "0")},
		{"a quota on what is not said", quotaOf(list("limits.memory", "1Gi")), berth.TaskSpec{CPU: "1"}, breach(diagnosis.BreachUnsaid, "team", "limits.memory", "0", "1Gi")},
		{"a quota on what a LimitRange gives", both, berth.TaskSpec{}, nil},
		{"local disk need not be said", quotaOf(list("requests.ephemeral-storage", "1Gi")), berth.TaskSpec{}, nil},
		{"a quota of what has no deadline", quotaOf(list("cpu", "1"), corev1.ResourceQuotaScopeTerminating), berth.TaskSpec{CPU: "2"}, nil},
		{"a quota of pods that ask for something", quotaOf(list("pods", "0"), corev1.ResourceQuotaScopeNotBestEffort), berth.TaskSpec{}, nil},
		{"a quota of a priority that may be another's", quotaOf(list("cpu", "1"), corev1.ResourceQuotaScopePriorityClass), berth.TaskSpec{CPU: "2"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.spec.Image = "busybox"
			pod, err := renderPod(engine.Order{TaskID: "d3k1", Attempt: 1, Pod: "berth-d3k1-1", Spec: test.spec}, berth.InfrastructureConfig{}, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, test.limits.breaches(pod)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
