//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// limitRange makes a LimitRange of the namespace.
func (s *site) limitRange(items ...corev1.LimitRangeItem) {
	s.t.Helper()
	_, err := admin.CoreV1().LimitRanges(s.namespace).Create(s.t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: corev1.LimitRangeSpec{Limits: items},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.takesHold("the LimitRange", resourcePod("999", "1Ti"))
}

// takesHold waits until the API server refuses a pod for a rule that was just made.
func (s *site) takesHold(what string, pod *corev1.Pod) {
	s.t.Helper()
	waitFor(s.t, what+" holds", 30*time.Second, func() bool {
		_, err := admin.CoreV1().Pods(s.namespace).Create(s.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
}

func resourcePod(cpu, memory string) *corev1.Pod {
	list := corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "tries-", Labels: map[string]string{"denied": "yes"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: busybox, Resources: corev1.ResourceRequirements{Requests: list, Limits: list}}}},
	}
}

// refusal runs a task that has to be refused: nothing is stored, nothing is
// made, and what berth run says is what -o json says.
func (s *site) refusal(args ...string) berth.Diagnosis {
	s.t.Helper()
	r := s.berth(append([]string{"run", "--detach", "-o", "json"}, args...)...)
	var told struct {
		Error struct {
			Code      berth.ErrorCode
			Message   string
			Diagnosis berth.Diagnosis
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &told); err != nil || r.code != 125 {
		s.t.Fatalf("exit %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	d := told.Error.Diagnosis
	for _, word := range []string{string(d.Cause), "What to do (" + string(d.Remedy.By) + ")", "--no-preflight"} {
		if !strings.Contains(r.stderr, word) {
			s.t.Errorf("berth run does not say %q:\n%s", word, r.stderr)
		}
	}
	if told.Error.Code == "" || !strings.Contains(told.Error.Message, d.Summary) {
		s.t.Errorf("the error is %+v", told.Error)
	}
	if tasks := s.tasks(); len(tasks) != 0 {
		s.t.Errorf("stored: %+v", tasks)
	}
	if n := s.created(); n != 0 {
		s.t.Errorf("%d pods were to be made", n)
	}
	return d
}

// created counts the requests that were to make a pod, dry runs not among them.
func (s *site) created() int {
	s.t.Helper()
	n := 0
	for _, r := range s.requests() {
		if r.uses() == "create pods" && !strings.Contains(r.RequestURI, "dryRun=All") {
			n++
		}
	}
	return n
}

// dryRuns counts the requests that were to find out whether a pod would be taken.
func (s *site) dryRuns() int {
	s.t.Helper()
	n := 0
	for _, r := range s.requests() {
		if r.uses() == "create pods" && strings.Contains(r.RequestURI, "dryRun=All") {
			n++
		}
	}
	return n
}

func TestPreflightRefusesWhatWillNeverBeAccepted(t *testing.T) {
	tests := []struct {
		name  string
		rule  func(*site)
		args  []string
		cause berth.Cause
		words []string
	}{
		{
			"more than a LimitRange allows", func(s *site) {
				s.limitRange(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{"cpu": resource.MustParse("500m")}})
			}, []string{"--cpu", "2"}, berth.CauseLimitRangeViolated, []string{"500m", "2"},
		},
		{
			"more than the whole quota", func(s *site) { s.setQuota(corev1.ResourceList{"requests.memory": resource.MustParse("1Gi")}) },
			[]string{"--memory", "3Gi"}, berth.CauseQuotaExceeded, []string{"of-the-team", "requests.memory", "3Gi", "1Gi"},
		},
		{
			"a quota on what the task does not say", func(s *site) { s.setQuota(corev1.ResourceList{"limits.cpu": resource.MustParse("1")}) },
			nil, berth.CauseQuotaExceeded, []string{"of-the-team", "limits.cpu"},
		},
		{"a priority class that is not there", func(s *site) { s.infra("pod: {priority_class: gold}\n") }, nil, berth.CausePriorityClassNotFound, []string{"gold"}},
		{"a runtime class that is not there", func(s *site) { s.infra("pod: {runtime_class: gvisor}\n") }, nil, berth.CauseRuntimeClassNotFound, []string{"gvisor"}},
		{"a service account that is not there", func(s *site) { s.infra("pod: {service_account: nobody}\n") }, nil, berth.CauseServiceAccountNotFound, []string{"nobody"}},
		{"a policy of the cluster", (*site).denyLabelled, []string{"--label", "denied=yes"}, berth.CauseAdmissionDenied, []string{"not on this cluster"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			test.rule(s)
			check(t, s.refusal(append(test.args, busybox, "true")...), test.cause, test.words...)
		})
	}
}

// denyLabelled makes a policy that denies pods with a label in the namespace.
func (s *site) denyLabelled() {
	s.t.Helper()
	name := "deny-" + s.namespace
	fail := admissionv1.Fail
	rule := admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.Create},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
	}}
	policies := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	bindings := admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err := policies.Create(s.t.Context(), &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy:    &fail,
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{rule}},
		Validations:      []admissionv1.Validation{{Expression: "!has(object.metadata.labels) || !('denied' in object.metadata.labels)", Message: "not on this cluster"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = bindings.Delete(context.Background(), name, metav1.DeleteOptions{})
		_ = policies.Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	_, err = bindings.Create(s.t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.namespace}}},
	}}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.takesHold("the policy", resourcePod("1m", "1Mi"))
}

func TestPreflightQueuesWhatIsOnlyShortOfRoomNow(t *testing.T) {
	s := newSite(t)
	s.setQuota(corev1.ResourceList{"pods": resource.MustParse("1")})
	first := s.detach(busybox, "sh", "-c", forever)
	second := s.detach(busybox, "true")
	if task := s.diagnosed(second, berth.CauseQuotaExceeded); task.State != berth.StateQueued {
		t.Errorf("the task is %s", task.State)
	}
	s.must("task", "cancel", first)
	s.must("task", "wait", second)
}

func TestPreflightOfEqualTasksIsMadeOnce(t *testing.T) {
	s := newSite(t)
	host := s.start("run", busybox, "sh", "-c", forever) // it stays, and remembers
	waitFor(t, "a host is there", 30*time.Second, func() bool { return len(s.tasks()) == 1 })
	for i := range 5 {
		s.detach("--name", fmt.Sprintf("task-%d", i), "--env", fmt.Sprintf("N=%d", i), "--label", fmt.Sprintf("n=%d", i), busybox, "echo", fmt.Sprint(i))
	}
	if n := s.dryRuns(); n != 1 {
		t.Errorf("%d dry runs of one shape", n)
	}
	s.detach("--cpu", "10m", busybox, "true")
	if n := s.dryRuns(); n != 2 {
		t.Errorf("%d dry runs of two shapes", n)
	}
	host.kill()
	<-host.done
}

func TestPreflightLearnsThatANamespaceWantsNonRoot(t *testing.T) {
	s := newSite(t)
	s.enforce("restricted")
	if got := s.must("run", "--user", "1000", busybox, "id", "-u"); got != "1000\n" {
		t.Errorf("output %q", got)
	}
	if n := s.created(); n != 1 {
		t.Errorf("%d creates: the first was not as the namespace wants it", n)
	}
}

func TestPreflightCanBeLeftOut(t *testing.T) {
	s := newSite(t)
	s.limitRange(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{"cpu": resource.MustParse("500m")}})
	r := s.berth("run", "--name", "all-the-same", "--no-preflight", "--cpu", "2", busybox, "true")
	if r.code != 125 || s.dryRuns() != 0 {
		t.Errorf("exit %d, %d dry runs\n%s", r.code, s.dryRuns(), r.stderr)
	}
	check(t, s.explained(s.byName("all-the-same")), berth.CauseLimitRangeViolated, "500m")
}

// Where its limits may not be listed, that is not asked for, and what the API
// server itself says is told.
func TestPreflightAsksForNothingThatIsNotGranted(t *testing.T) {
	s := newSite(t)
	s.withoutRight("list", "limitranges")
	s.withoutRight("list", "resourcequotas")
	s.limitRange(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{"cpu": resource.MustParse("500m")}})
	check(t, s.refusal("--cpu", "2", busybox, "true"), berth.CauseLimitRangeViolated, "500m", "2")
	for _, r := range s.requests() {
		if r.refused() {
			t.Errorf("refused: %s %s", r.Verb, r.RequestURI)
		}
	}
}

func TestPreflightWithoutTheRightToCreatePods(t *testing.T) {
	s := newSite(t)
	s.withoutRight("create", "pods")
	check(t, s.refusal(busybox, "true"), berth.CauseForbidden, "create pods", "namespace "+s.namespace)
}

// A rule that can't be asked now says nothing about the task: it waits.
func TestPreflightLeavesATaskToWaitForAWebhook(t *testing.T) {
	s := newSite(t)
	name := "away-" + s.namespace
	fail, none, one := admissionv1.Fail, admissionv1.SideEffectClassNone, int32(1)
	address := "https://" + closedPort(t, hostIP(t)) + "/"
	webhooks := admin.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := webhooks.Create(t.Context(), &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionv1.ValidatingWebhook{{
		Name: "away.berth.run", FailurePolicy: &fail, SideEffects: &none, TimeoutSeconds: &one, AdmissionReviewVersions: []string{"v1"},
		ClientConfig:      admissionv1.WebhookClientConfig{URL: &address},
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.namespace}},
		Rules: []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}},
	}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	remove := func() { _ = webhooks.Delete(context.Background(), name, metav1.DeleteOptions{}) }
	t.Cleanup(remove)
	s.takesHold("the webhook", resourcePod("1m", "1Mi"))
	run := s.start("run", "--name", "patient", busybox, "echo", "after all")
	waitFor(t, "berth run says what it waits for", 30*time.Second, func() bool { return strings.Contains(run.stderr.String(), "away.berth.run") })
	remove()
	if r := run.wait(within(t, 90*time.Second)); r.code != 0 || r.stdout != "after all\n" {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
}
