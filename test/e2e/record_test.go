//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/berth-run/berth"
)

// keep writes what the cluster showed of a task as fixtures for
// internal/diagnosis, into the folder that BERTH_E2E_RECORD names. Names and
// addresses of this run are for a person to replace.
func (s *site) keep(task berth.Task, shown map[berth.Cause]*sight) {
	s.t.Helper()
	dir := os.Getenv("BERTH_E2E_RECORD")
	if dir == "" {
		return
	}
	version, err := admin.Discovery().ServerVersion()
	if err != nil {
		s.t.Fatal(err)
	}
	write := func(cause berth.Cause, fixture map[string]any) {
		fixture["kubernetes"], fixture["origin"] = version.GitVersion, "recorded"
		out, err := yaml.Marshal(fixture)
		if err != nil {
			s.t.Fatal(err)
		}
		for i := 1; ; i++ {
			path := filepath.Join(dir, fmt.Sprintf("%s-recorded-%d.yaml", cause, i))
			if _, err := os.Stat(path); err == nil {
				continue
			}
			if err := os.WriteFile(path, out, 0o644); err != nil {
				s.t.Fatal(err)
			}
			return
		}
	}
	for cause, seen := range shown {
		pod := seen.pod.DeepCopy()
		pod.ManagedFields = nil
		pod.Spec = corev1.PodSpec{
			NodeName: pod.Spec.NodeName, NodeSelector: pod.Spec.NodeSelector, ActiveDeadlineSeconds: pod.Spec.ActiveDeadlineSeconds, SchedulingGates: pod.Spec.SchedulingGates,
			Containers: pod.Spec.Containers, InitContainers: pod.Spec.InitContainers, Volumes: pod.Spec.Volumes,
		}
		for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range containers {
				containers[i].SecurityContext = nil
			}
		}
		var events []corev1.Event
		for _, e := range seen.events {
			e.ObjectMeta, e.InvolvedObject.ResourceVersion = metav1.ObjectMeta{}, ""
			events = append(events, e)
		}
		write(cause, map[string]any{"pod": pod, "events": events})
	}
	// What the API server answered is in the evidence, word for word.
	d := task.Diagnosis
	if d == nil || len(d.Evidence) == 0 {
		return
	}
	var code int
	if _, err := fmt.Sscanf(d.Evidence[0].Source, "API server, HTTP %d", &code); err != nil {
		return
	}
	reasons := map[int]metav1.StatusReason{http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusInternalServerError: metav1.StatusReasonInternalError}
	write(d.Cause, map[string]any{
		"request": map[string]string{"verb": "create", "resource": "pods"},
		"status":  metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reasons[code], Message: strings.TrimSpace(d.Evidence[0].Text)},
	})
}
