package kubeconfig

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

const (
	created   = "created"
	updated   = "updated"
	unchanged = "is as it should be"
)

// enforced is the label by which a namespace says what its pods may be.
const enforced = "pod-security.kubernetes.io/enforce"

// namespace makes the namespace. Who may neither look at it nor make it may
// still have been given one, so that is no error yet.
func (c *creation) namespace(ctx context.Context) (string, error) {
	api := c.client.CoreV1().Namespaces()
	namespace, err := api.Get(ctx, c.Namespace, metav1.GetOptions{})
	switch {
	case err == nil && namespace.Status.Phase == corev1.NamespaceTerminating:
		return "", berth.Errorf(berth.CodeConflict, "namespace %s is being deleted; wait until it is gone, or choose another", c.Namespace)
	case err == nil:
		c.podSecurity = namespace.Labels[enforced]
		return "exists", nil
	case !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
		return "", err
	}
	_, err = api.Create(ctx, namespaceManifest(c.Namespace), metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return "exists", nil
	case apierrors.IsForbidden(err):
		return "may not be made with your kubeconfig; going on as if it existed", nil
	}
	return created, err
}

// expiringTokens marks an account for which tokens were made that expire. They
// are kept nowhere: only with the account itself can they be made worthless.
const expiringTokens = "berth.run/expiring-tokens"

func (c *creation) serviceAccount(ctx context.Context) (string, error) {
	api := c.client.CoreV1().ServiceAccounts(c.Namespace)
	sa, err := api.Get(ctx, account, metav1.GetOptions{})
	said := unchanged
	if err == nil && c.Rotate && sa.Annotations[expiringTokens] != "" {
		if err := remove(ctx, api, sa); err != nil {
			return "", err
		}
		sa, err = api.Create(ctx, serviceAccountManifest(c.Namespace), metav1.CreateOptions{})
		said = "made anew, so that tokens from --ttl stop working too"
	}
	if apierrors.IsNotFound(err) {
		said = created
		sa, err = api.Create(ctx, serviceAccountManifest(c.Namespace), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // somebody else just did
			sa, err = api.Get(ctx, account, metav1.GetOptions{})
		}
	}
	if err != nil {
		return "", err
	}
	c.accountID = string(sa.UID)
	if c.TTL > 0 && sa.Annotations[expiringTokens] == "" {
		err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
			sa, err := api.Get(ctx, account, metav1.GetOptions{})
			if err != nil {
				return err
			}
			metav1.SetMetaDataAnnotation(&sa.ObjectMeta, expiringTokens, "true")
			_, err = api.Update(ctx, sa, metav1.UpdateOptions{})
			return err
		})
	}
	return said, err
}

// role makes the role grant exactly what the profiles need: rights of an
// earlier run that are no longer asked for go.
func (c *creation) role(ctx context.Context) (string, error) {
	want := roleManifest(c.Namespace, c.profiles)
	said, err := ensure(ctx, c.client.RbacV1().Roles(c.Namespace), want, func(have *rbacv1.Role) bool {
		same := reflect.DeepEqual(have.Rules, want.Rules)
		have.Rules = want.Rules
		return same
	})
	var names []string
	for _, p := range c.profiles {
		names = append(names, string(p))
	}
	return fmt.Sprintf("%s, %d rights (%s)", said, len(permissions.Of(c.profiles...)), strings.Join(names, ", ")), err
}

func (c *creation) roleBinding(ctx context.Context) (string, error) {
	api, want := c.client.RbacV1().RoleBindings(c.Namespace), roleBindingManifest(c.Namespace)
	have, err := api.Get(ctx, account, metav1.GetOptions{})
	if err == nil && have.RoleRef != want.RoleRef { // which can't be changed
		if err := remove(ctx, api, have); err != nil {
			return "", err
		}
	}
	return ensure(ctx, api, want, func(have *rbacv1.RoleBinding) bool {
		same := reflect.DeepEqual(have.Subjects, want.Subjects)
		have.Subjects = want.Subjects
		return same
	})
}

// objects is what all kinds of objects of a namespace have in common.
type objects[T metav1.Object] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error)
	Create(ctx context.Context, object T, opts metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, opts metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// ensure makes an object, or makes one that is there as it is wanted. To
// correct changes what it is given, and reports whether that was as wanted.
func ensure[T metav1.Object](ctx context.Context, api objects[T], want T, correct func(have T) bool) (said string, err error) {
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have, err := api.Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			said = created
			_, err = api.Create(ctx, want, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		labels := withLabels(have.GetLabels(), want.GetLabels())
		same := correct(have)
		if said = unchanged; same && maps.Equal(have.GetLabels(), labels) {
			return nil
		}
		said = updated
		have.SetLabels(labels)
		_, err = api.Update(ctx, have, metav1.UpdateOptions{})
		return err
	})
	return said, err
}

// remove deletes an object that was seen, and no other of its name.
func remove[T metav1.Object](ctx context.Context, api objects[T], seen T) error {
	uid := seen.GetUID()
	err := api.Delete(ctx, seen.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// withLabels adds ours to what others have put there.
func withLabels(have, ours map[string]string) map[string]string {
	labels := maps.Clone(ours)
	maps.Copy(labels, have)
	maps.Copy(labels, ours)
	return labels
}
