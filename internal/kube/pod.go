package kube

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// MainContainer is the name of the container whose end is the attempt's end.
const MainContainer = "main"

// terminationGrace is between SIGTERM and SIGKILL, as docker stop has it: a
// shell as PID 1 ignores SIGTERM, and who cancels wants it to end.
const terminationGrace = 10 * time.Second

// renderPod makes the pod of an attempt: bare, with one container, as
// unprivileged as the work allows. nonRoot adds what a namespace with Pod
// Security "restricted" wants beyond what every pod of ours has.
func renderPod(order engine.Order, config berth.InfrastructureConfig, nonRoot bool) (*corev1.Pod, error) {
	spec := &order.Spec
	labels := map[string]string{}
	for key, value := range config.Pod.Labels {
		labels[key] = value
	}
	for key, value := range spec.Labels {
		labels[key] = value
	}
	labels[berth.LabelManagedBy] = berth.LabelManagedByValue
	labels[berth.LabelInstance] = order.Instance
	labels[berth.LabelTask] = order.TaskID
	labels[berth.LabelAttempt] = strconv.Itoa(order.Attempt)
	if spec.Name != "" {
		labels[berth.LabelName] = spec.Name
	}
	grace := int64(terminationGrace / time.Second)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: order.Pod, Labels: labels},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			AutomountServiceAccountToken:  ptr(false),
			EnableServiceLinks:            ptr(false),
			TerminationGracePeriodSeconds: &grace,
			ServiceAccountName:            config.Pod.ServiceAccount,
			PriorityClassName:             config.Pod.PriorityClass,
			NodeSelector:                  config.Pod.NodeSelector,
			Tolerations:                   tolerations(config.Pod.Tolerations),
			SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:            MainContainer,
				Image:           image(order),
				ImagePullPolicy: pullPolicy(spec),
				Command:         literal(spec.Entrypoint),
				Args:            literal(spec.Args),
				Env:             env(spec.Env),
				Resources:       resources(spec),
				// What a runtime says of a program that it can't run ("exec
				// format error") is only in the log.
				TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr(false),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	if config.Pod.RuntimeClass != "" {
		pod.Spec.RuntimeClassName = &config.Pod.RuntimeClass
	}
	for _, name := range config.Pod.ImagePullSecrets {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	if spec.Timeout > 0 {
		pod.Spec.ActiveDeadlineSeconds = ptr(int64((spec.Timeout + time.Second - 1) / time.Second))
	}
	if uid, gid, err := berth.ParseUser(spec.User); err == nil {
		pod.Spec.SecurityContext.RunAsUser, pod.Spec.SecurityContext.RunAsGroup = &uid, &gid
	}
	if nonRoot || config.Pod.Security == "restricted" {
		pod.Spec.SecurityContext.RunAsNonRoot = ptr(true)
	}
	for i, v := range order.SecretEnv {
		main := &pod.Spec.Containers[0]
		main.Env = append(main.Env, secretEnv(order, v.Name, secretEnvKey(i)))
	}
	if spec.Cluster != nil {
		addClusterKeys(pod, spec.Cluster)
	}
	if config.DFS != nil {
		addDFS(pod, order, config.DFS)
	}
	if order.Agent != nil {
		if err := addAgent(pod, order); err != nil {
			return nil, err
		}
	}
	if order.Login() != nil {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: pullSecretName(order)})
	}
	if config.Proxy != nil {
		if err := addProxy(pod, order, config.Proxy); err != nil {
			return nil, err
		}
	}
	return pod, nil
}

func ptr[T any](v T) *T { return &v }

// image is the one to run: what the first attempt ran, where its digest can be
// pulled, so that a retry runs the same.
func image(order engine.Order) string {
	if order.Attempt > 1 && strings.Contains(order.ImageID, "@sha256:") && !strings.Contains(order.ImageID, "://") {
		return order.ImageID
	}
	return order.Spec.Image
}

func pullPolicy(spec *berth.TaskSpec) corev1.PullPolicy {
	if berth.ImageIsLoaded(spec.Image) {
		return corev1.PullNever // a node that lacks it says so at once
	}
	switch spec.Pull {
	case berth.PullAlways:
		return corev1.PullAlways
	case berth.PullNever:
		return corev1.PullNever
	case berth.PullDefault:
		if berth.ImageIsLatest(spec.Image) {
			return corev1.PullAlways
		}
	}
	return corev1.PullIfNotPresent
}

func env(vars []berth.EnvVar) []corev1.EnvVar {
	var out []corev1.EnvVar
	for _, v := range vars {
		out = append(out, corev1.EnvVar{Name: v.Name, Value: strings.ReplaceAll(v.Value, "$", "$$")})
	}
	return out
}

// literal writes words so that they arrive as they are: Kubernetes replaces
// $(NAME), and makes $$ one $, in commands, arguments and values.
func literal(words []string) []string {
	var out []string
	for _, word := range words {
		out = append(out, strings.ReplaceAll(word, "$", "$$"))
	}
	return out
}

// written is the opposite of literal.
func written(words []string) []string {
	var out []string
	for _, word := range words {
		out = append(out, strings.ReplaceAll(word, "$$", "$"))
	}
	return out
}

func resources(spec *berth.TaskSpec) corev1.ResourceRequirements {
	list := corev1.ResourceList{}
	if milli, err := spec.CPU.MilliCPU(); err == nil {
		list[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	for name, q := range map[corev1.ResourceName]berth.Quantity{corev1.ResourceMemory: spec.Memory, corev1.ResourceEphemeralStorage: spec.EphemeralStorage} {
		if bytes, err := q.Bytes(); err == nil {
			list[name] = *resource.NewQuantity(bytes, resource.BinarySI)
		}
	}
	if spec.GPU > 0 {
		list["nvidia.com/gpu"] = *resource.NewQuantity(int64(spec.GPU), resource.DecimalSI)
	}
	if len(list) == 0 {
		return corev1.ResourceRequirements{}
	}
	return corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}

func tolerations(in []berth.Toleration) []corev1.Toleration {
	var out []corev1.Toleration
	for _, t := range in {
		out = append(out, corev1.Toleration{
			Key: t.Key, Operator: corev1.TolerationOperator(t.Operator), Value: t.Value,
			Effect: corev1.TaintEffect(t.Effect), TolerationSeconds: t.Seconds,
		})
	}
	return out
}
