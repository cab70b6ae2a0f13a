package kubeconfig

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// revoke takes back what was granted in the namespace. The namespace, and what
// runs in it, stay.
func (c *creation) revoke(ctx context.Context) error {
	core, rbac := c.client.CoreV1(), c.client.RbacV1()
	err := c.each(ctx, []step{
		// Rights end with the binding at once, tokens only when the API server
		// looks again.
		{"role binding " + account, withdrawal(rbac.RoleBindings(c.Namespace))},
		{"service account " + account, withdrawal(core.ServiceAccounts(c.Namespace))},
		{"role " + account, withdrawal(rbac.Roles(c.Namespace))},
		{"tokens", func(ctx context.Context) (string, error) {
			secrets, err := c.tokenSecrets(ctx)
			for _, secret := range secrets {
				c.old = append(c.old, secret.Name)
			}
			if err != nil {
				return "", err
			}
			return c.withdraw(ctx)
		}},
	})
	if err != nil {
		return err
	}
	if _, err := core.ServiceAccounts(c.Namespace).Get(ctx, account, metav1.GetOptions{}); err == nil {
		fmt.Fprintf(c.stderr, "\nThe tokens of an account that stays go on working, without the rights that are taken back.\n")
	} else {
		fmt.Fprintf(c.stderr, "\nEvery token that was made for %s is worthless within some seconds.\n", c.Namespace)
	}
	pods, err := core.Pods(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: berth.LabelManagedBy + "=" + berth.LabelManagedByValue})
	if err != nil {
		return nil //nolint:nilerr // a courtesy: everything was taken back
	}
	running := 0
	for _, pod := range pods.Items {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			running++
		}
	}
	if running > 0 {
		fmt.Fprintf(c.stderr, "%d pods of Berth still run there, and nobody can end them with what was handed out:\nkubectl -n %s delete pods -l %s=%s\n", running, c.Namespace, berth.LabelManagedBy, berth.LabelManagedByValue)
	}
	return nil
}

// withdrawal deletes our object of a kind, and none that somebody else made
// under the same name.
func withdrawal[T metav1.Object](api objects[T]) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		object, err := api.Get(ctx, account, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return "was not there", nil
		case err != nil:
			return "", err
		case object.GetLabels()[berth.LabelManagedBy] != berth.LabelManagedByValue:
			return "is not of Berth's making, and stays", nil
		}
		if err := remove(ctx, api, object); err != nil {
			return "", err
		}
		return "withdrawn", nil
	}
}
