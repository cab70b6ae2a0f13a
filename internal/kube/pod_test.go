package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// Kubernetes replaces $(NAME) and makes $$ one $; what a person wrote is meant
// as it is.
func TestDollarsReachTheProgramAsTheyWereWritten(t *testing.T) {
	words := []string{"$(HOME)", "kill $$", "a$b", "$", "$$(X)"}
	spec := berth.TaskSpec{Image: "a:1", Entrypoint: words, Args: words, Env: []berth.EnvVar{{Name: "V", Value: "$$(HOME)"}}}
	pod, err := renderPod(engine.Order{Spec: spec}, berth.InfrastructureConfig{}, false)
	if err != nil {
		t.Fatal(err)
	}
	c := pod.Spec.Containers[0]
	want := []string{"$$(HOME)", "kill $$$$", "a$$b", "$$", "$$$$(X)"}
	if diff := cmp.Diff(want, c.Command) + cmp.Diff(want, c.Args); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]corev1.EnvVar{{Name: "V", Value: "$$$$(HOME)"}}, c.Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(words, written(c.Args)); diff != "" {
		t.Error(diff)
	}
}

// A probe's pod pulls with the Secret that its control plane keeps in the
// namespace anyway: one of its own would stay there.
func TestPullSecretIsThatOfTheInstance(t *testing.T) {
	for instance, want := range map[string]string{"": "berth-registry-i", "other": "berth-registry-other"} {
		order := engine.Order{Instance: "i", Agent: &engine.Agent{Registry: &engine.RegistryLogin{Instance: instance}}}
		pod, err := renderPod(order, berth.InfrastructureConfig{}, false)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: want}}, pod.Spec.ImagePullSecrets); diff != "" {
			t.Error(diff)
		}
	}
}
