//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// alterLabel of a task says how the cluster's webhook alters its pod.
const alterLabel = "alter"

// admission serves an admission webhook to the API server over TLS, as
// clusters do that alter or refuse what people create.
func admission(t *testing.T, review func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) admissionregistrationv1.WebhookClientConfig {
	t.Helper()
	host := hostIP(t)
	listener, ca := listenTLS(t, host, time.Now().Add(time.Hour))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Request == nil {
			http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
			return
		}
		answer := review(asked.Request)
		answer.UID = asked.Request.UID
		asked.Request, asked.Response = nil, answer
		_ = json.NewEncoder(w).Encode(asked)
	})}
	go server.Serve(listener) //nolint:errcheck // it ends when it is closed
	t.Cleanup(func() { server.Close() })
	url := "https://" + listener.Addr().String() + "/"
	return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca}
}

// listenTLS listens with a certificate of its own that is valid until a time.
func listenTLS(t *testing.T, host string, until time.Time) (net.Listener, []byte) {
	t.Helper()
	cert, key, ca := certificate(t, until, host)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(host, "0"), &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener, ca
}

// webhookScope are the pods of the site that a webhook is asked about, by label.
func (s *site) webhookScope(label, value string) (*metav1.LabelSelector, *metav1.LabelSelector, []admissionregistrationv1.RuleWithOperations) {
	namespace := &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.namespace}}
	object := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: label, Operator: metav1.LabelSelectorOpExists}}}
	if value != "" {
		object = &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}
	}
	return namespace, object, []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
	}}
}

// alterPods has a mutating webhook apply a JSON patch to the site's pods, by
// the value of their label alter: volumes, secrets and classes get into pods
// so, whatever Berth asks for.
func (s *site) alterPods(patches map[string]string) {
	s.t.Helper()
	client := admission(s.t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		var pod corev1.Pod
		if err := json.Unmarshal(r.Object.Raw, &pod); err != nil {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: err.Error()}}
		}
		kind := admissionv1.PatchTypeJSONPatch
		patch := patches[pod.Labels[alterLabel]]
		if patch == "" {
			patch = `[{"op": "add", "path": "/metadata/annotations", "value": {"altered": "yes"}}]`
		}
		return &admissionv1.AdmissionResponse{Allowed: true, PatchType: &kind, Patch: []byte(patch)}
	})
	namespace, object, rules := s.webhookScope(alterLabel, "")
	none, fail := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-alter"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "alter.example.org", ClientConfig: client, Rules: rules, NamespaceSelector: namespace, ObjectSelector: object,
			SideEffects: &none, FailurePolicy: &fail, AdmissionReviewVersions: []string{"v1"},
		}},
	}
	hooks := admin.AdmissionregistrationV1().MutatingWebhookConfigurations()
	if _, err := hooks.Create(s.t.Context(), hook, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = hooks.Delete(background, hook.Name, metav1.DeleteOptions{}) })
	waitFor(s.t, "the webhook alters pods", 30*time.Second, func() bool {
		pod, err := admin.CoreV1().Pods(s.namespace).Create(s.t.Context(), s.probePod(alterLabel, "probe"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && pod.Annotations["altered"] == "yes"
	})
}

// probePod is a pod that is created for a dry run only.
func (s *site) probePod(label, value string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-", Labels: map[string]string{label: value}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: busybox}}},
	}
}

// refusePods has a validating webhook deny the site's pods with a label.
func (s *site) refusePods(label, value string, client admissionregistrationv1.WebhookClientConfig, name string) (remove func()) {
	s.t.Helper()
	namespace, object, rules := s.webhookScope(label, value)
	none, fail := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-" + name},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: name + ".example.org", ClientConfig: client, Rules: rules, NamespaceSelector: namespace, ObjectSelector: object,
			SideEffects: &none, FailurePolicy: &fail, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: new(int32(20)),
		}},
	}
	hooks := admin.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := hooks.Create(s.t.Context(), hook, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	remove = func() { _ = hooks.Delete(background, hook.Name, metav1.DeleteOptions{}) }
	s.t.Cleanup(remove)
	s.untilRefused(label, value)
	return remove
}

// untilRefused waits until pods with a label are refused.
func (s *site) untilRefused(label, value string) {
	s.t.Helper()
	waitFor(s.t, "pods with "+label+"="+value+" are refused", 30*time.Second, func() bool {
		_, err := admin.CoreV1().Pods(s.namespace).Create(s.t.Context(), s.probePod(label, value), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
}

func denial(message string) func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
	}
}
