package kube

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/permissions"
)

var _ engine.SecretKeeper = (*Driver)(nil)

// clusterKeysVolume is the volume with the TLS keys of a compute cluster.
const clusterKeysVolume = "berth-cluster"

// addClusterKeys mounts the TLS keys of a compute cluster. Whoever the image's
// user is may read them: nobody else is in the pod.
func addClusterKeys(pod *corev1.Pod, member *berth.ClusterMember) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: clusterKeysVolume, VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: berth.ClusterSecretName(member.Cluster), DefaultMode: ptr(int32(0o444))},
	}})
	main := &pod.Spec.Containers[0]
	main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: clusterKeysVolume, MountPath: berth.ClusterSecretPath, ReadOnly: true})
}

// CreateSecret makes a Secret of the instance that belongs to no pod, or with
// dryRun finds out whether that may be done. One of the instance that is there
// already stays as it is.
func (d *Driver) CreateSecret(ctx context.Context, name string, labels map[string]string, data map[string][]byte, dryRun bool) error {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{berth.LabelManagedBy: berth.LabelManagedByValue}},
		Immutable:  ptr(true), Type: corev1.SecretTypeOpaque, Data: data,
	}
	for key, value := range labels {
		secret.Labels[key] = value
	}
	_, err := d.client.Clientset.CoreV1().Secrets(d.client.Namespace).Create(ctx, secret, createOptions(dryRun))
	if err == nil || apierrors.IsAlreadyExists(err) && dryRun {
		return nil
	}
	if apierrors.IsAlreadyExists(err) {
		there, err := d.secret(ctx, name)
		if err != nil {
			return err
		}
		if there.Labels[berth.LabelInstance] != labels[berth.LabelInstance] || there.Labels[berth.LabelManagedBy] != berth.LabelManagedByValue {
			return &engine.Refusal{Kind: engine.RefusedExists, Err: fmt.Errorf("there is a Secret %s that somebody else made", name)}
		}
		return nil
	}
	return d.clusterRefusal(err, "create")
}

// Secret returns what a Secret of that name holds. RefusedNotFound when there is
// none.
func (d *Driver) Secret(ctx context.Context, name string) (map[string][]byte, error) {
	secret, err := d.secret(ctx, name)
	if err != nil {
		return nil, err
	}
	return secret.Data, nil
}

func (d *Driver) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret, err := d.client.Clientset.CoreV1().Secrets(d.client.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, d.clusterRefusal(err, "get")
	}
	return secret, nil
}

// DeleteSecret deletes a Secret, if it is the instance's. One that isn't there is
// no error.
func (d *Driver) DeleteSecret(ctx context.Context, name, instance string) error {
	secret, err := d.secret(ctx, name)
	if err == nil {
		if secret.Labels[berth.LabelInstance] != instance {
			return nil
		}
		err = d.client.Clientset.CoreV1().Secrets(d.client.Namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err != nil {
			return d.clusterRefusal(err, "delete")
		}
		return nil
	}
	var refusal *engine.Refusal
	if errors.As(err, &refusal) && refusal.Kind == engine.RefusedNotFound {
		return nil
	}
	return err
}

// clusterRefusal explains what the API server says of the Secret of a cluster.
func (d *Driver) clusterRefusal(err error, verb string) error {
	return d.classify(err, verb, "secrets", diagnosis.Subject{Profile: string(permissions.Clusters)})
}
