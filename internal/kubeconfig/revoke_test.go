package kubeconfig

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/berth-run/berth"
)

// revoke runs --revoke against a fake cluster.
func revoke(t *testing.T, client *fake.Clientset) string {
	t.Helper()
	var out strings.Builder
	c, err := newCreation(Options{Namespace: "work", Revoke: true}, &out)
	if err != nil {
		t.Fatal(err)
	}
	c.client = client
	if err := c.revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestRevokeTakesBackWhatWasMadeAndNothingElse(t *testing.T) {
	client := cluster(t, false)
	if _, err := create(t, client, Options{Namespace: "work", Output: filepath.Join(t.TempDir(), "k")}); err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{berth.LabelManagedBy: berth.LabelManagedByValue}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "berth-x-1", Namespace: "work", Labels: ours}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: "work"}}
	if err := client.Tracker().Add(pod); err != nil {
		t.Fatal(err)
	}
	if err := client.Tracker().Add(secret); err != nil {
		t.Fatal(err)
	}
	said := revoke(t, client)
	ctx := t.Context()
	for what, get := range map[string]func() error{
		"service account": func() error {
			_, err := client.CoreV1().ServiceAccounts("work").Get(ctx, "berth", metav1.GetOptions{})
			return err
		},
		"role": func() error {
			_, err := client.RbacV1().Roles("work").Get(ctx, "berth", metav1.GetOptions{})
			return err
		},
		"role binding": func() error {
			_, err := client.RbacV1().RoleBindings("work").Get(ctx, "berth", metav1.GetOptions{})
			return err
		},
		"token": func() error {
			_, err := client.CoreV1().Secrets("work").Get(ctx, "berth-token", metav1.GetOptions{})
			return err
		},
	} {
		if err := get(); !apierrors.IsNotFound(err) {
			t.Errorf("the %s is still there: %v", what, err)
		}
	}
	if _, err := client.CoreV1().Secrets("work").Get(ctx, "theirs", metav1.GetOptions{}); err != nil {
		t.Errorf("somebody else's Secret: %v", err)
	}
	if _, err := client.CoreV1().Namespaces().Get(ctx, "work", metav1.GetOptions{}); err != nil {
		t.Errorf("the namespace: %v", err)
	}
	if !strings.Contains(said, "1 pods of Berth still run") {
		t.Errorf("what runs on is not said:\n%s", said)
	}
	if again := revoke(t, client); !strings.Contains(again, "was not there") {
		t.Errorf("once more:\n%s", again)
	}
}

func TestRevokeLeavesAnAccountThatSomebodyElseMade(t *testing.T) {
	client := cluster(t, false)
	theirs := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "berth", Namespace: "work"}}
	if err := client.Tracker().Add(theirs); err != nil {
		t.Fatal(err)
	}
	said := revoke(t, client)
	if _, err := client.CoreV1().ServiceAccounts("work").Get(t.Context(), "berth", metav1.GetOptions{}); err != nil || !strings.Contains(said, "not of Berth's making") || strings.Contains(said, "worthless") {
		t.Errorf("%v\n%s", err, said)
	}
}

// Tokens from --ttl are kept nowhere, so a rotation has to replace the account.
func TestRotateEndsTokensThatExpireToo(t *testing.T) {
	client, path := cluster(t, false), filepath.Join(t.TempDir(), "k")
	uids := 0
	client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() == "" {
			uids++
			account := action.(clienttesting.CreateAction).GetObject().(*corev1.ServiceAccount)
			account.UID = types.UID(strings.Repeat("x", uids))
		}
		return false, nil, nil
	})
	if _, err := create(t, client, Options{Output: path, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	before, err := client.CoreV1().ServiceAccounts("berth").Get(t.Context(), "berth", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, client, Options{Output: path, Force: true, Rotate: true}); err != nil {
		t.Fatal(err)
	}
	after, err := client.CoreV1().ServiceAccounts("berth").Get(t.Context(), "berth", metav1.GetOptions{})
	if err != nil || after.UID == before.UID || after.Annotations[expiringTokens] != "" {
		t.Errorf("the account is the same: %v, %v", after, err)
	}
}

func TestATokenThatExpiresMayBeRenewedUnlessThatIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options Options
		granted bool
		said    string
	}{
		{"with --ttl", Options{TTL: time.Hour}, true, "Berth renews the token by itself"},
		{"with --no-renewal", Options{TTL: time.Hour, NoRenewal: true}, false, "can't be renewed"},
		{"that does not expire", Options{}, false, "Next:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := cluster(t, false)
			tt.options.Output = filepath.Join(t.TempDir(), "k")
			said, err := create(t, client, tt.options)
			if err != nil {
				t.Fatal(err)
			}
			role, err := client.RbacV1().Roles("berth").Get(t.Context(), "berth", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			granted := false
			for _, rule := range role.Rules {
				if rule.Resources[0] == "serviceaccounts/token" {
					granted = len(rule.ResourceNames) == 1 && rule.ResourceNames[0] == "berth" && len(rule.Verbs) == 1
				}
			}
			if granted != tt.granted || !strings.Contains(said, tt.said) {
				t.Errorf("granted %v\n%s", granted, said)
			}
		})
	}
}

func TestOptionsThatContradictEachOther(t *testing.T) {
	for _, tt := range []struct {
		options Options
		want    string
	}{
		{Options{NoRenewal: true}, "--ttl"},
		{Options{Revoke: true, Rotate: true}, "--revoke"},
		{Options{Revoke: true, TTL: time.Hour}, "--revoke"},
		{Options{Revoke: true, DryRun: true}, "--revoke"},
	} {
		if err := Create(context.Background(), tt.options, io.Discard, io.Discard); berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.options, err)
		}
	}
}

func TestAProxyInANamespaceThatForbidsIt(t *testing.T) {
	client := cluster(t, false)
	namespace := namespaceManifest("work")
	namespace.Labels[enforced] = "restricted"
	if err := client.Tracker().Add(namespace); err != nil {
		t.Fatal(err)
	}
	said, err := create(t, client, Options{Namespace: "work", Output: filepath.Join(t.TempDir(), "k"), Profiles: []string{"proxy"}})
	if err != nil || !strings.Contains(said, "NET_ADMIN") {
		t.Errorf("%v\n%s", err, said)
	}
}
