//go:build e2e

package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// simulatedNode is a node without a machine: the test is its kubelet. It has
// room for one pod, a label of its own name to be chosen by, and a taint that keeps
// other tests' pods off it.
type simulatedNode struct {
	t    *testing.T
	name string
}

const simulatedLabel = "e2e.example.org/node"

func newSimulatedNode(t *testing.T, name string) *simulatedNode {
	t.Helper()
	n := &simulatedNode{t, name}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{simulatedLabel: name}}}
	node.Spec.Taints = []corev1.Taint{{Key: simulatedLabel, Effect: corev1.TaintEffectNoSchedule}}
	if _, err := admin.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.forceDelete()
		if err := admin.CoreV1().Nodes().Delete(background, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	n.report(corev1.ConditionTrue, "KubeletReady")
	waitFor(t, "the node is open", 30*time.Second, func() bool {
		now, err := admin.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && len(now.Spec.Taints) == 1
	})
	return n
}

// report is what a kubelet tells of its node.
func (n *simulatedNode) report(ready corev1.ConditionStatus, reason string) {
	n.t.Helper()
	room := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("1"), "ephemeral-storage": resource.MustParse("20Gi")}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := admin.CoreV1().Nodes().Get(n.t.Context(), n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now := metav1.Now()
		node.Status.Capacity, node.Status.Allocatable = room, room
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}}
		_, err = admin.CoreV1().Nodes().UpdateStatus(n.t.Context(), node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *simulatedNode) pods() []corev1.Pod {
	n.t.Helper()
	list, err := admin.CoreV1().Pods("").List(background, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.name})
	if err != nil {
		n.t.Fatal(err)
	}
	return list.Items
}

// run waits for a pod and says that its container runs.
func (n *simulatedNode) run() {
	n.t.Helper()
	waitFor(n.t, "a pod comes to the node", 30*time.Second, func() bool { return len(n.pods()) == 1 })
	pod := n.pods()[0]
	now := metav1.Now()
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: pod.Spec.Containers[0].Image, ImageID: pod.Spec.Containers[0].Image, Ready: true,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
	if _, err := admin.CoreV1().Pods(pod.Namespace).UpdateStatus(n.t.Context(), &pod, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// forceDelete deletes the node's pods, which nothing else ends.
func (n *simulatedNode) forceDelete() {
	n.t.Helper()
	zero := int64(0)
	for _, pod := range n.pods() {
		_ = admin.CoreV1().Pods(pod.Namespace).Delete(background, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	}
}

// setExtended gives the cluster's real node an amount of an extended resource,
// as device plugins do; "" takes it away.
func setExtended(t *testing.T, name, amount string) {
	t.Helper()
	value := `"` + amount + `"`
	if amount == "" {
		value = "null"
	}
	patch := `{"status": {"capacity": {"` + name + `": ` + value + `}, "allocatable": {"` + name + `": ` + value + `}}}`
	if _, err := admin.CoreV1().Nodes().Patch(background, nodeName(t), types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		t.Error(err)
	}
}
