package kube

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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

// Who asks a mount that is silent can't be killed: the probe waits neither for
// them nor for a pipe that they hold, and has nobody else ask until they are back.
func TestAProbeDoesNotWaitForASilentFilesystem(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"silent": "#!/bin/sh\necho asked >> " + dir + "/asked\nread answer < " + dir + "/answers\necho \"$answer\"\n",
		"well":   "#!/bin/sh\nexec /bin/ls \"$@\"\n",
		"broken": "#!/bin/sh\necho 'ls: Input/output error'\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "ls"), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "answers"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := strings.ReplaceAll(answersScript, "/tmp/", dir+"/")
	probe := func(ls string) (string, bool) {
		cmd := exec.Command("sh", "-c", script, "berth", dir, "1")
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, ls)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput() // which waits until nobody holds the pipe
		return string(out), err == nil
	}
	for _, is := range []struct {
		ls, said string
		ok       bool
	}{
		{"well", "", true},
		{"broken", diagnosis.DFSSilence + ": ls: Input/output error\n", false},
		{"well", "", true},
		{"silent", diagnosis.DFSSilence + ": nothing within 1 s\n", false},
		{"silent", diagnosis.DFSSilence + ": nothing within 1 s\n", false},
	} {
		if said, ok := probe(is.ls); said != is.said || ok != is.ok {
			t.Errorf("%s: %v, %q", is.ls, ok, said)
		}
	}
	if asked, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || string(asked) != "asked\n" {
		t.Errorf("asked: %q, %v", asked, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "answers"), []byte("No such file\n"), 0); err != nil { // as who asks waits to read it
		t.Fatal(err)
	}
	if said, ok := probe("well"); !ok {
		t.Errorf("once it answers: %q", said)
	}
}
