//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"github.com/berth-run/berth"
)

// record keeps what the cluster shows of each failed task's pod as a fixture
// for internal/diagnosis, in the folder that BERTH_E2E_RECORD names. Names and
// addresses of this run are for a person to replace.
func (s *site) record() {
	dir := os.Getenv("BERTH_E2E_RECORD")
	if dir == "" {
		return
	}
	var mu sync.Mutex
	pods := map[string]*corev1.Pod{} // as they were last while there was something to tell
	watcher, err := admin.CoreV1().Pods(s.namespace).Watch(context.Background(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for event := range watcher.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok && event.Type != watch.Deleted && pod.DeletionTimestamp == nil {
				mu.Lock()
				pods[pod.Labels[berth.LabelTask]] = pod
				mu.Unlock()
			}
		}
	}()
	s.t.Cleanup(func() {
		watcher.Stop()
		mu.Lock()
		defer mu.Unlock()
		for _, task := range s.tasks() {
			if pod := pods[task.ID]; pod != nil && task.Diagnosis != nil {
				s.keep(dir, string(task.Diagnosis.Cause), pod)
			}
		}
	})
}

// keep writes one fixture.
func (s *site) keep(dir, cause string, pod *corev1.Pod) {
	version, err := admin.Discovery().ServerVersion()
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := admin.CoreV1().Events(s.namespace).List(context.Background(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID)).String()})
	if err != nil {
		s.t.Fatal(err)
	}
	pod.ManagedFields = nil
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName, NodeSelector: pod.Spec.NodeSelector, ActiveDeadlineSeconds: pod.Spec.ActiveDeadlineSeconds, Containers: pod.Spec.Containers}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].SecurityContext = nil
	}
	for i := range list.Items {
		e := &list.Items[i]
		e.ObjectMeta, e.InvolvedObject.ResourceVersion = metav1.ObjectMeta{}, ""
	}
	out, err := yaml.Marshal(map[string]any{"kubernetes": version.GitVersion, "origin": "recorded", "pod": pod, "events": list.Items})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-recorded.yaml", cause)), out, 0o644); err != nil {
		s.t.Fatal(err)
	}
}
