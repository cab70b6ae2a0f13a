package kubeconfig

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/berth-run/berth"
)

// tokenSecret is the name of the first long-lived token's Secret.
const tokenSecret = account + "-token"

// tokenTimeout bounds the wait for Kubernetes to fill in a token.
const tokenTimeout = 30 * time.Second

func (c *creation) makeToken(ctx context.Context) (string, error) {
	secrets, err := c.tokenSecrets(ctx)
	if err != nil {
		return "", err
	}
	if c.Rotate {
		for _, secret := range secrets {
			c.old = append(c.old, secret.Name)
		}
		secrets = nil
	}
	if c.TTL > 0 {
		return c.requestToken(ctx)
	}
	said := "the one before still holds"
	var name string
	if len(secrets) > 0 {
		name = secrets[len(secrets)-1].Name
	} else if name, err = c.createSecret(ctx); err != nil {
		return "", err
	} else {
		said = "created, and does not expire"
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if c.token, err = c.await(ctx, name); err != nil {
		return "", err
	}
	return said, nil
}

// tokenSecrets are the Secrets with tokens of our account, the newest last.
// Those of an account of the same name that was deleted are about to go.
func (c *creation) tokenSecrets(ctx context.Context) ([]corev1.Secret, error) {
	list, err := c.client.CoreV1().Secrets(c.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: berth.LabelManagedBy + "=" + berth.LabelManagedByValue,
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String(),
	})
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(list.Items, func(s corev1.Secret) bool {
		uid := s.Annotations[corev1.ServiceAccountUIDKey]
		return s.Type != corev1.SecretTypeServiceAccountToken || s.Annotations[corev1.ServiceAccountNameKey] != account ||
			s.DeletionTimestamp != nil || (uid != "" && c.accountID != "" && uid != c.accountID)
	})
	slices.SortStableFunc(ours, func(a, b corev1.Secret) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return ours, nil
}

// createSecret makes a Secret under a name that was never used: the token is a
// signature over that name, so with an RSA key the same name would give the
// same token again, and a rotation would change nothing.
func (c *creation) createSecret(ctx context.Context) (string, error) {
	name := tokenSecret
	if c.Rotate {
		name += "-" + rand.String(5)
	}
	for {
		secret, err := c.client.CoreV1().Secrets(c.Namespace).Create(ctx, secretManifest(c.Namespace, name), metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			if err != nil {
				return "", err
			}
			return secret.Name, nil
		}
		name = tokenSecret + "-" + rand.String(5)
	}
}

// await waits until Kubernetes has filled in the token.
func (c *creation) await(ctx context.Context, name string) (string, error) {
	api := c.client.CoreV1().Secrets(c.Namespace)
	for ctx.Err() == nil {
		// The watch begins before the look, so that nothing happens in between.
		watcher, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
		if err != nil {
			return "", err
		}
		token, err := func() (string, error) {
			defer watcher.Stop()
			secret, err := api.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			if token := secret.Data[corev1.ServiceAccountTokenKey]; len(token) > 0 {
				return string(token), nil
			}
			for event := range watcher.ResultChan() {
				if secret, ok := event.Object.(*corev1.Secret); ok && len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 {
					return string(secret.Data[corev1.ServiceAccountTokenKey]), nil
				}
			}
			return "", nil // the watch ended: look again
		}()
		if err != nil || token != "" {
			return token, err
		}
	}
	return "", berth.Errorf(berth.CodeUnavailable, "the cluster did not fill in the token of Secret %s within %s; does its controller-manager run? A token with --ttl needs none", name, tokenTimeout)
}

// requestToken gets a token that expires by itself.
func (c *creation) requestToken(ctx context.Context) (string, error) {
	seconds := int64(c.TTL / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := c.client.CoreV1().ServiceAccounts(c.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	c.token = answer.Status.Token
	if c.token == "" {
		return "", berth.Errorf(berth.CodeUnavailable, "the cluster answered the TokenRequest without a token")
	}
	said := "expires on " + answer.Status.ExpirationTimestamp.UTC().Format(time.RFC3339)
	if time.Until(answer.Status.ExpirationTimestamp.Time) < c.TTL-time.Minute {
		said += fmt.Sprintf(", sooner than the %s asked for: the cluster allows no longer", c.TTL)
	}
	return said, nil
}

// withdraw deletes the tokens that a rotation replaces, once the new one is
// safely in the file.
func (c *creation) withdraw(ctx context.Context) (string, error) {
	for _, name := range c.old {
		err := c.client.CoreV1().Secrets(c.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
	}
	if len(c.old) == 0 {
		return "", nil
	}
	return fmt.Sprintf("withdrawn (%d)", len(c.old)), nil
}
