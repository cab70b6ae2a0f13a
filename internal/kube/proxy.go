package kube

import (
	"errors"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// proxyVolume is shared by the two containers of the proxy.
const proxyVolume = "berth-proxy"

// addProxy sends all that a pod sends through a proxy. Before anything else a
// container with NET_ADMIN, and nothing beside it, makes the rules and ends. A
// sidecar with no privilege at all takes in what they redirect. Whatever comes
// after, the pod's other init containers too, is behind them.
func addProxy(pod *corev1.Pod, order engine.Order, proxy *berth.Proxy) error {
	if order.Proxy == nil {
		return errors.New("the pod has a proxy, and there is no image to reach it by")
	}
	main := &pod.Spec.Containers[0]
	variable, err := (&agent.Proxy{Protocol: proxy.Protocol, Address: proxy.Address, Bypass: proxy.Bypass, As: order.TaskID + "-" + strconv.Itoa(order.Attempt)}).Env()
	if err != nil {
		return err
	}
	environ := env([]berth.EnvVar{variable})
	container := func(name, what string) corev1.Container {
		return corev1.Container{
			Name: name, Image: order.Proxy.Image, ImagePullPolicy: pullPolicy(&berth.TaskSpec{Image: order.Proxy.Image, Pull: berth.PullMissing}),
			Command: []string{agent.Path, "proxy", what}, Env: environ, Resources: proxyResources(main.Resources),
			VolumeMounts: []corev1.VolumeMount{{Name: proxyVolume, MountPath: agent.ProxyDir}},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}
	}
	rules := container(diagnosis.ProxyRulesContainer, "rules")
	rules.SecurityContext.RunAsUser, rules.SecurityContext.RunAsGroup, rules.SecurityContext.RunAsNonRoot = ptr(int64(0)), ptr(int64(0)), ptr(false)
	rules.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}

	sidecar := container(diagnosis.ProxyContainer, "serve")
	sidecar.RestartPolicy = ptr(corev1.ContainerRestartPolicyAlways)
	sidecar.SecurityContext.RunAsUser, sidecar.SecurityContext.RunAsGroup, sidecar.SecurityContext.RunAsNonRoot = ptr(int64(agent.ProxyUID)), ptr(int64(agent.ProxyUID)), ptr(true)
	if proxy.User != "" {
		sidecar.Env = append(sidecar.Env[:1:1], secretEnv(order, agent.ProxyUserVar, proxyUserKey), secretEnv(order, agent.ProxyPasswordVar, proxyPasswordKey))
	}
	asks := func(what string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{agent.Path, "proxy", what}}}
	}
	// It is the task's patience that ends an attempt whose proxy can't be used.
	sidecar.StartupProbe = &corev1.Probe{ProbeHandler: asks("ready"), TimeoutSeconds: 10, PeriodSeconds: 1, FailureThreshold: 1 << 20}
	sidecar.ReadinessProbe = &corev1.Probe{ProbeHandler: asks("usable"), TimeoutSeconds: 10, PeriodSeconds: 10, FailureThreshold: 1}

	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: proxyVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	pod.Spec.InitContainers = append([]corev1.Container{rules, sidecar}, pod.Spec.InitContainers...)
	main.Env = append(proxyVariables(proxy, main.Env), main.Env...)
	return nil
}

// proxyVariables are for programs that heed them: they reach the sidecar with
// less ado than by redirection, and leave names to the proxy. They have no
// login in them. What the task sets itself stays.
func proxyVariables(proxy *berth.Proxy, set []corev1.EnvVar) []corev1.EnvVar {
	local := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(agent.ProxyLocalPort))
	around := []string{"localhost", "127.0.0.1", "::1"}
	for _, b := range proxy.Bypass {
		text := b.Prefix.String()
		if b.Prefix.IsSingleIP() {
			text = b.Prefix.Addr().String()
		}
		switch {
		case b.Port == 0:
			around = append(around, text)
		case b.Prefix.IsSingleIP():
			around = append(around, net.JoinHostPort(text, strconv.Itoa(int(b.Port))))
		}
	}
	var out []corev1.EnvVar
	for _, v := range []corev1.EnvVar{{Name: "HTTP_PROXY", Value: local}, {Name: "HTTPS_PROXY", Value: local}, {Name: "ALL_PROXY", Value: local}, {Name: "NO_PROXY", Value: strings.Join(around, ",")}} {
		lower := strings.ToLower(v.Name)
		taken := false
		for i := range set {
			taken = taken || strings.ToLower(set[i].Name) == lower
		}
		if !taken {
			out = append(out, v, corev1.EnvVar{Name: lower, Value: v.Value})
		}
	}
	return out
}

// proxyResources are what a container of the proxy asks for, where the task
// asks for something: a namespace with a quota wants it of every container. To
// move what the task sends takes CPU, so that has a wide limit.
func proxyResources(main corev1.ResourceRequirements) corev1.ResourceRequirements {
	out := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	if cpu, ok := main.Limits[corev1.ResourceCPU]; ok {
		limit := resource.MustParse("1")
		if cpu.Cmp(limit) > 0 {
			limit = cpu
		}
		out.Requests[corev1.ResourceCPU], out.Limits[corev1.ResourceCPU] = resource.MustParse("50m"), limit
	}
	if _, ok := main.Limits[corev1.ResourceMemory]; ok {
		out.Requests[corev1.ResourceMemory], out.Limits[corev1.ResourceMemory] = resource.MustParse("32Mi"), resource.MustParse("256Mi")
	}
	if len(out.Limits) == 0 {
		return corev1.ResourceRequirements{}
	}
	return out
}
