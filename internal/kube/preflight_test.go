package kube

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

func driverOf(t *testing.T, s *apiServer) *Driver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: first}"), 0o600)
	infra := configInfra(path)
	infra.Namespace = "work"
	c, err := NewClient(infra, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return NewDriver(c, infra, "instance")
}

func orderOf(spec berth.TaskSpec) engine.Order {
	spec.Image = "busybox"
	return engine.Order{Instance: "instance", TaskID: "d3k1", Attempt: 1, Pod: "berth-d3k1-1", Spec: spec}
}

// always answers each create with a refusal.
func always(code int32, reason metav1.StatusReason, message string) func(*corev1.Pod) *metav1.Status {
	return func(*corev1.Pod) *metav1.Status {
		return &metav1.Status{Status: "Failure", Code: code, Reason: reason, Message: message}
	}
}

func TestPreflightDecides(t *testing.T) {
	small := rangeOf(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: list("cpu", "500m")}).ranges
	team := quotaOf(list("requests.cpu", "4")).quotas
	forbidden := metav1.StatusReasonForbidden
	tests := []struct {
		name     string
		onCreate func(*corev1.Pod) *metav1.Status
		ranges   []corev1.LimitRange
		quotas   []corev1.ResourceQuota
		denied   []string
		cause    berth.Cause // of what is hopeless; "" for what goes on
		words    []string    // of the remedy
		again    int64       // dry runs of the same shape, asked about twice
	}{
		{name: "accepted", again: 1},
		{
			name: "a LimitRange", onCreate: always(403, forbidden, `pods "x" is forbidden: maximum cpu usage per Container is 500m, but limit is 2`),
			ranges: small, quotas: team, cause: berth.CauseLimitRangeViolated, words: []string{"use --cpu 500m or less"}, again: 2,
		},
		{
			name: "a LimitRange that may not be looked at", onCreate: always(403, forbidden, `pods "x" is forbidden: maximum cpu usage per Container is 500m, but limit is 2`),
			ranges: small, denied: []string{"list limitranges", "list resourcequotas"}, cause: berth.CauseLimitRangeViolated, words: []string{"--cpu"}, again: 2,
		},
		{
			name: "a quota that others use", onCreate: always(403, forbidden, `pods "x" is forbidden: exceeded quota: team, requested: requests.cpu=2, used: requests.cpu=3, limited: requests.cpu=4`),
			quotas: team, again: 1,
		},
		{
			name: "a webhook that takes no dry run", onCreate: always(400, metav1.StatusReasonBadRequest, `admission webhook "old.example" does not support dry run`), again: 1,
		},
		{
			name: "more than a LimitRange, and a webhook that takes no dry run", ranges: small,
			onCreate: always(400, metav1.StatusReasonBadRequest, `admission webhook "old.example" does not support dry run`),
			cause:    berth.CauseLimitRangeViolated, words: []string{"use --cpu 500m or less"}, again: 2,
		},
		{
			name: "a webhook that is away", onCreate: always(500, metav1.StatusReasonInternalError, `Internal error occurred: failed calling webhook "w.example": connection refused`), again: 1,
		},
		{name: "an API server in trouble", onCreate: always(503, metav1.StatusReasonServiceUnavailable, "the server is currently unable to handle the request"), again: 1},
		{
			name: "no right to create pods", onCreate: always(403, forbidden, `pods is forbidden: User "ann" cannot create resource "pods" in API group "" in the namespace "work"`),
			cause: berth.CauseForbidden, words: []string{"create-kubeconfig"}, again: 2,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newAPIServer(t, "first")
			s.onCreate, s.ranges, s.quotas, s.denied = test.onCreate, test.ranges, test.quotas, map[string]bool{}
			for _, what := range test.denied {
				s.denied[what] = true
			}
			d := driverOf(t, s)
			err := d.Preflight(t.Context(), orderOf(berth.TaskSpec{CPU: "2"}))
			var refusal *engine.Refusal
			hopeless := errors.As(err, &refusal) && refusal.Hopeless
			if hopeless != (test.cause != "") {
				t.Fatalf("hopeless %t: %v", hopeless, err)
			}
			if hopeless && refusal.Diagnosis.Cause != test.cause {
				t.Errorf("cause %s: %v", refusal.Diagnosis.Cause, err)
			}
			for _, word := range test.words {
				if !strings.Contains(refusal.Diagnosis.Remedy.Text, word) {
					t.Errorf("the remedy lacks %q: %s", word, refusal.Diagnosis.Remedy.Text)
				}
			}
			_ = d.Preflight(t.Context(), orderOf(berth.TaskSpec{CPU: "2", Name: "another"}))
			if n := s.dryRuns.Load(); n != test.again {
				t.Errorf("%d dry runs, want %d", n, test.again)
			}
		})
	}
}

func TestPreflightFindsOutThatTheNamespaceWantsNonRoot(t *testing.T) {
	s := newAPIServer(t, "first")
	s.onCreate = func(pod *corev1.Pod) *metav1.Status {
		if c := pod.Spec.SecurityContext; c.RunAsNonRoot != nil && *c.RunAsNonRoot {
			return nil
		}
		return always(403, metav1.StatusReasonForbidden, `pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`)(pod)
	}
	d := driverOf(t, s)
	if err := d.Preflight(t.Context(), orderOf(berth.TaskSpec{})); err != nil {
		t.Fatal(err)
	}
	before := s.dryRuns.Load()
	if _, err := d.Create(t.Context(), orderOf(berth.TaskSpec{})); err != nil || s.dryRuns.Load() != before || before != 2 {
		t.Errorf("%v, after %d dry runs", err, before)
	}
}
