package kube

import (
	"context"
	"errors"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/permissions"
)

// Keys of a pod's Secret.
const (
	dfsPasswordKey   = "dfs-password"
	proxyUserKey     = "proxy-user"
	proxyPasswordKey = "proxy-password"
)

func secretKey(i int) string { return "input-" + strconv.Itoa(i) }

func secretEnvKey(i int) string { return "env-" + strconv.Itoa(i) }

// podSecret is what a pod is given by a Secret of its own: the values of secret
// inputs, and the logins of what it mounts and of its proxy. Most pods need none.
func podSecret(order engine.Order, config berth.InfrastructureConfig) map[string][]byte {
	data := map[string][]byte{}
	if order.Agent != nil {
		for i, s := range order.Agent.Secrets {
			if s.Ref == nil {
				data[secretKey(i)] = []byte(s.Value.Reveal())
			}
		}
	}
	for i, v := range order.SecretEnv {
		data[secretEnvKey(i)] = []byte(v.Value.Reveal())
	}
	if config.DFS != nil {
		if _, password := DFSAddress(config.DFS); password != "" {
			data[dfsPasswordKey] = []byte(password)
		}
	}
	if config.Proxy != nil && config.Proxy.User != "" {
		data[proxyUserKey], data[proxyPasswordKey] = []byte(config.Proxy.User), []byte(config.Proxy.Password.Reveal())
	}
	return data
}

// secretEnv is a variable whose value is in the Secret of the order's pod.
func secretEnv(order engine.Order, name, key string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: order.Pod}, Key: key,
	}}}
}

// ensureSecret makes the Secret of a pod. It belongs to the pod and goes with
// it, so nothing has to delete it. The pod is made first: its container waits
// until the Secret is there.
func (d *Driver) ensureSecret(ctx context.Context, order engine.Order, uid string) error {
	data := podSecret(order, d.config)
	if len(data) == 0 {
		return nil
	}
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: order.Pod, UID: types.UID(uid)}}
	return d.createSecret(ctx, order, data, owner, false)
}

// maySecret finds out, once, whether the Secret of a pod may be made, before the
// pod is: one that waits for what never comes would have to be deleted.
func (d *Driver) maySecret(ctx context.Context, order engine.Order) error {
	data := podSecret(order, d.config)
	if len(data) == 0 || d.secrets.Load() {
		return nil
	}
	for key := range data {
		data[key] = nil // nobody has to be shown it for that
	}
	err := d.createSecret(ctx, order, data, nil, true)
	var refusal *engine.Refusal
	if errors.As(err, &refusal) && refusal.Kind == engine.RefusedForbidden {
		return refusal
	}
	d.secrets.Store(err == nil)
	return nil
}

func (d *Driver) createSecret(ctx context.Context, order engine.Order, data map[string][]byte, owner []metav1.OwnerReference, dryRun bool) error {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: order.Pod,
			Labels: map[string]string{
				berth.LabelManagedBy: berth.LabelManagedByValue, berth.LabelInstance: order.Instance, berth.LabelTask: order.TaskID, berth.LabelAttempt: strconv.Itoa(order.Attempt),
			},
			OwnerReferences: owner,
		},
		Immutable: ptr(true), Type: corev1.SecretTypeOpaque, Data: data,
	}
	_, err := d.client.Clientset.CoreV1().Secrets(d.client.Namespace).Create(ctx, secret, createOptions(dryRun))
	if err == nil || apierrors.IsAlreadyExists(err) {
		return nil
	}
	about := d.about(order)
	if _, login := data[proxyUserKey]; login && (order.Agent == nil || len(order.Agent.Secrets) == 0) {
		about.Profile = string(permissions.Proxy)
	}
	return d.classify(err, "create", "secrets", about)
}
