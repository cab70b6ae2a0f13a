package kubeconfig

import (
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{berth.LabelManagedBy: berth.LabelManagedByValue}}
}

func namespaceManifest(namespace string) *corev1.Namespace {
	return &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: meta("", namespace)}
}

func serviceAccountManifest(namespace string) *corev1.ServiceAccount {
	no := false // no pod needs this account's token: it is for whoever submits tasks
	return &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta(namespace, account),
		AutomountServiceAccountToken: &no,
	}
}

func roleManifest(namespace string, profiles []permissions.Profile) *rbacv1.Role {
	return &rbacv1.Role{
		TypeMeta: metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role"}, ObjectMeta: meta(namespace, account),
		Rules: rules(namespace, profiles),
	}
}

func roleBindingManifest(namespace string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta: metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "RoleBinding"}, ObjectMeta: meta(namespace, account),
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: namespace}},
	}
}

func secretManifest(namespace, name string) *corev1.Secret {
	m := meta(namespace, name)
	m.Annotations = map[string]string{corev1.ServiceAccountNameKey: account}
	return &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: m, Type: corev1.SecretTypeServiceAccountToken}
}

// rules are the permissions of profiles as a Role has them: one rule for each
// resource, with exactly the verbs of the table.
func rules(namespace string, profiles []permissions.Profile) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, p := range permissions.Of(profiles...) {
		resource := p.Resource
		if p.Subresource != "" {
			resource += "/" + p.Subresource
		}
		i := slices.IndexFunc(rules, func(r rbacv1.PolicyRule) bool {
			return r.APIGroups[0] == p.Group && r.Resources[0] == resource && (len(r.ResourceNames) > 0) == p.OnlyItself
		})
		if i < 0 {
			i = len(rules)
			rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{p.Group}, Resources: []string{resource}})
			if name := p.ObjectName(namespace, account); name != "" {
				rules[i].ResourceNames = []string{name}
			}
		}
		if !slices.Contains(rules[i].Verbs, p.Verb) {
			rules[i].Verbs = append(rules[i].Verbs, p.Verb)
		}
	}
	return rules
}

// writeManifests writes all of it as kubectl apply takes it.
func writeManifests(w io.Writer, namespace string, profiles []permissions.Profile, withSecret bool) error {
	objects := []any{namespaceManifest(namespace), serviceAccountManifest(namespace), roleManifest(namespace, profiles), roleBindingManifest(namespace)}
	if withSecret {
		objects = append(objects, secretManifest(namespace, tokenSecret))
	}
	for i, object := range objects {
		if i > 0 {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return err
			}
		}
		text, err := yaml.Marshal(object)
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}
