package kube

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

func sharing(dfs berth.DFS) berth.InfrastructureConfig {
	dfs.Path, dfs.Image = berth.DefaultDFSPath, berth.DefaultDFSImage
	return berth.InfrastructureConfig{DFS: &dfs}
}

// What mounts is privileged; the task's own container is as it is without. The
// password is in the pod's Secret and not in the pod.
func TestASharedFilesystemHasASidecar(t *testing.T) {
	order := engine.Order{Pod: "berth-x-1", TaskID: "x", Spec: berth.TaskSpec{Image: "a:1", User: "1000:1000"}}
	config := sharing(berth.DFS{URL: "redis://me:pa$$word@redis.example:6379/1"})
	pod, err := renderPod(order, config, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) != 1 || pod.Spec.InitContainers[0].Name != diagnosis.DFSContainer || *pod.Spec.InitContainers[0].RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Fatalf("init containers: %+v", pod.Spec.InitContainers)
	}
	sidecar, main := pod.Spec.InitContainers[0], pod.Spec.Containers[0]
	if s := sidecar.SecurityContext; !*s.Privileged || *s.RunAsUser != 0 || *s.RunAsNonRoot {
		t.Errorf("the sidecar runs with %+v", s)
	}
	if s := main.SecurityContext; s.Privileged != nil || *s.AllowPrivilegeEscalation || len(s.Capabilities.Add) != 0 {
		t.Errorf("the task runs with %+v", s)
	}
	if m := main.VolumeMounts[0]; m.MountPath != "/data" || *m.MountPropagation != corev1.MountPropagationHostToContainer || m.Name != sidecar.VolumeMounts[0].Name {
		t.Errorf("the task mounts %+v", m)
	}
	if text := pod.String(); strings.Contains(text, "pa$$word") || strings.Contains(text, "pa$$$$word") || !strings.Contains(text, "redis://me@redis.example:6379/1") {
		t.Errorf("the pod is %s", text)
	}
	if got := string(podSecret(order, config)[dfsPasswordKey]); got != "pa$$word" {
		t.Errorf("the Secret has %q", got)
	}
	if secret := podSecret(order, sharing(berth.DFS{URL: "redis://redis.example:6379/1"})); len(secret) != 0 {
		t.Errorf("without a password the Secret has %d keys", len(secret))
	}
}

// A claim takes no sidecar, no privilege and no Secret.
func TestASharedClaimHasNoSidecar(t *testing.T) {
	order := engine.Order{Pod: "berth-x-1", Spec: berth.TaskSpec{Image: "a:1"}}
	config := sharing(berth.DFS{Claim: "shared", ReadOnly: true})
	pod, err := renderPod(order, config, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) != 0 || len(podSecret(order, config)) != 0 {
		t.Errorf("init containers: %+v", pod.Spec.InitContainers)
	}
	if m := pod.Spec.Containers[0].VolumeMounts[0]; m.MountPath != "/data" || !m.ReadOnly || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "shared" {
		t.Errorf("the task mounts %+v of %+v", m, pod.Spec.Volumes)
	}
}
