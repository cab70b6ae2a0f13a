package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// pullSecret keeps the Secret by which nodes log in to a registry.
type pullSecret struct {
	mu   sync.Mutex
	kept engine.RegistryLogin // as the Secret has it
}

// pullOwner is the instance whose Secret an order's pod pulls with.
func pullOwner(order engine.Order) string {
	if login := order.Login(); login.Instance != "" {
		return login.Instance
	}
	return order.Instance
}

func pullSecretName(order engine.Order) string { return diagnosis.PullSecretPrefix + pullOwner(order) }

// ensurePullSecret sees to it that nodes can log in to the registry of an
// order, and has its pod do so. One Secret serves all pods of the instance.
func (d *Driver) ensurePullSecret(ctx context.Context, order engine.Order) error {
	if order.Login() == nil {
		return nil
	}
	login := *order.Login()
	d.pull.mu.Lock()
	defer d.pull.mu.Unlock()
	if d.pull.kept == login {
		return nil
	}
	auth := map[string]string{
		"username": login.Username, "password": login.Password.Reveal(),
		"auth": base64.StdEncoding.EncodeToString([]byte(login.Username + ":" + login.Password.Reveal())),
	}
	data, err := json.Marshal(map[string]any{"auths": map[string]any{login.Host: auth}})
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: pullSecretName(order), Labels: map[string]string{
			berth.LabelManagedBy: berth.LabelManagedByValue, berth.LabelInstance: pullOwner(order),
		}},
		Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: data},
	}
	api, verb := d.client.Clientset.CoreV1().Secrets(d.client.Namespace), "create"
	_, err = api.Create(ctx, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		verb = "update"
		_, err = api.Update(ctx, secret, metav1.UpdateOptions{})
	}
	if err != nil {
		return d.refuse(err, verb, "secrets", order)
	}
	d.pull.kept = login
	return nil
}
