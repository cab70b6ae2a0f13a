package kube

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

func proxied(t *testing.T, spec berth.TaskSpec, proxy berth.Proxy) *corev1.Pod {
	t.Helper()
	order := engine.Order{TaskID: "d3k1", Attempt: 2, Pod: "berth-d3k1-2", Spec: spec, Proxy: &engine.Proxy{Image: "registry.example/berth/let:1"}}
	pod, err := renderPod(order, berth.InfrastructureConfig{Proxy: &proxy}, true)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// The rules come first, and only what makes them has a capability; everybody is
// who they are meant to be, whatever the task's user is.
func TestPodsBehindAProxy(t *testing.T) {
	pod := proxied(t, berth.TaskSpec{Image: "busybox", User: "64646:7", Env: []berth.EnvVar{{Name: "https_proxy", Value: "mine"}}, CPU: "2", Memory: "1Gi"}, berth.Proxy{
		Protocol: berth.ProxySOCKS5, Address: "proxy:1080", User: "ada", Password: "s3cret",
		Bypass: []berth.ProxyBypass{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Prefix: netip.MustParsePrefix("11.0.0.1/32"), Port: 53}, {Prefix: netip.MustParsePrefix("12.0.0.0/8"), Port: 53}},
	})
	if len(pod.Spec.InitContainers) != 2 {
		t.Fatalf("%d init containers", len(pod.Spec.InitContainers))
	}
	rules, sidecar, main := pod.Spec.InitContainers[0], pod.Spec.InitContainers[1], pod.Spec.Containers[0]
	if rules.Name != diagnosis.ProxyRulesContainer || rules.RestartPolicy != nil || !slices.Equal(rules.SecurityContext.Capabilities.Add, []corev1.Capability{"NET_ADMIN"}) || *rules.SecurityContext.RunAsUser != 0 || *rules.SecurityContext.RunAsNonRoot {
		t.Errorf("the rules: %+v", rules)
	}
	if sidecar.Name != diagnosis.ProxyContainer || *sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways || len(sidecar.SecurityContext.Capabilities.Add) > 0 || *sidecar.SecurityContext.RunAsUser != agent.ProxyUID {
		t.Errorf("the sidecar: %+v", sidecar)
	}
	for _, c := range []corev1.Container{rules, sidecar, main} {
		if !slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) || *c.SecurityContext.AllowPrivilegeEscalation || c.Resources.Limits.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: %+v %+v", c.Name, c.SecurityContext, c.Resources)
		}
	}
	if strings.Contains(pod.String(), "s3cret") {
		t.Error("the password is in the pod")
	}
	got := map[string]string{}
	for _, v := range main.Env {
		got[v.Name] = v.Value
	}
	const local = "http://127.0.0.1:21081"
	want := map[string]string{"HTTP_PROXY": local, "http_proxy": local, "https_proxy": "mine", "ALL_PROXY": local, "all_proxy": local, "NO_PROXY": "localhost,127.0.0.1,::1,10.0.0.0/8,11.0.0.1:53"}
	want["no_proxy"] = want["NO_PROXY"]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the task's variables (-want +got):\n%s", diff)
	}
	order, err := agent.ReadProxy(func(name string) string {
		for _, v := range sidecar.Env {
			if v.Name == name {
				return v.Value
			}
		}
		return ""
	})
	if err != nil || order.As != "d3k1-2" || order.Address != "proxy:1080" || len(order.Bypass) != 3 {
		t.Errorf("the order: %+v, %v", order, err)
	}
}

// What asks for nothing gets no limits by its proxy.
func TestPodsBehindAProxyWithoutResources(t *testing.T) {
	for _, c := range proxied(t, berth.TaskSpec{Image: "busybox"}, berth.Proxy{Address: "proxy:1080"}).Spec.InitContainers {
		if len(c.Resources.Limits)+len(c.Resources.Requests) > 0 {
			t.Errorf("%s: %+v", c.Name, c.Resources)
		}
	}
}

// No pod of such an infrastructure is ever made without.
func TestNoPodWithoutItsProxy(t *testing.T) {
	if _, err := renderPod(engine.Order{Pod: "p", Spec: berth.TaskSpec{Image: "busybox"}}, berth.InfrastructureConfig{Proxy: &berth.Proxy{Address: "proxy:1080"}}, false); err == nil {
		t.Error("it was made")
	}
}
