package kubeconfig

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// cluster is a fake one whose token controller works at once or, with late,
// only after somebody watches.
func cluster(t *testing.T, late bool) *fake.Clientset {
	t.Helper()
	client := fake.NewClientset()
	fill := func(secret *corev1.Secret) {
		secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte("token-of-" + secret.Name)}
	}
	client.PrependReactor("create", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		secret := action.(clienttesting.CreateAction).GetObject().(*corev1.Secret)
		if !late {
			fill(secret)
			return false, nil, nil
		}
		filled := secret.DeepCopy()
		fill(filled)
		go func() {
			for client.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, filled, secret.Namespace) != nil {
				goruntime.Gosched() // until the create is done
			}
		}()
		return false, nil, nil
	})
	client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "token" {
			return false, nil, nil
		}
		request := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
		request.Status.Token = "token-that-expires"
		request.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*request.Spec.ExpirationSeconds) * time.Second))
		return true, request, nil
	})
	return client
}

// create runs it against a fake cluster.
func create(t *testing.T, client *fake.Clientset, options Options) (stderr string, err error) {
	t.Helper()
	var out bytes.Buffer
	c, err := newCreation(options, &out)
	if err != nil {
		return "", err
	}
	if c.output, err = openOutput(c.Output, c.Force, io.Discard); err != nil {
		return "", err
	}
	defer c.output.discard()
	c.client = client
	c.admin = &admin{context: "admin", name: "site", cluster: &api.Cluster{Server: "https://example.com:6443"}, ca: []byte("CA")}
	err = c.run(t.Context())
	return out.String(), err
}

func readKubeconfig(t *testing.T, path string) (namespace, token string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	current := config.Contexts[config.CurrentContext]
	cluster := config.Clusters[current.Cluster]
	if cluster.Server != "https://example.com:6443" || string(cluster.CertificateAuthorityData) != "CA" {
		t.Errorf("cluster is %+v", cluster)
	}
	return current.Namespace, config.AuthInfos[current.AuthInfo].Token
}

func TestCreateFromNothing(t *testing.T) {
	for _, late := range []bool{false, true} {
		client, path := cluster(t, late), filepath.Join(t.TempDir(), "kubeconfig")
		stderr, err := create(t, client, Options{Namespace: "work", Output: path})
		if err != nil {
			t.Fatal(err)
		}
		if namespace, token := readKubeconfig(t, path); namespace != "work" || token != "token-of-berth-token" {
			t.Errorf("namespace %s, token %s", namespace, token)
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		for _, want := range []string{"read its Secrets", "berth infra add NAME --kubeconfig " + path} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q is not said in\n%s", want, stderr)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestTheRoleGrantsExactlyWhatIsUsed(t *testing.T) {
	client := cluster(t, false)
	if _, err := create(t, client, Options{Namespace: "work", Output: filepath.Join(t.TempDir(), "k")}); err != nil {
		t.Fatal(err)
	}
	role, err := client.RbacV1().Roles("work").Get(t.Context(), "berth", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	core := []string{""}
	want := []rbacv1.PolicyRule{
		{APIGroups: core, Resources: []string{"pods"}, Verbs: []string{"create", "get", "list", "watch", "delete"}},
		{APIGroups: core, Resources: []string{"pods/log"}, Verbs: []string{"get"}},
		{APIGroups: core, Resources: []string{"events"}, Verbs: []string{"list", "watch"}},
		{APIGroups: core, Resources: []string{"resourcequotas"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"limitranges"}, Verbs: []string{"list"}},
		{APIGroups: core, Resources: []string{"namespaces"}, ResourceNames: []string{"work"}, Verbs: []string{"get"}},
	}
	if diff := cmp.Diff(want, role.Rules); diff != "" {
		t.Error(diff)
	}
	binding, err := client.RbacV1().RoleBindings("work").Get(t.Context(), "berth", metav1.GetOptions{})
	if err != nil || binding.RoleRef.Name != "berth" || len(binding.Subjects) != 1 || binding.Subjects[0].Namespace != "work" {
		t.Errorf("binding %+v, %v", binding, err)
	}
}

func TestTwiceIsOnce(t *testing.T) {
	client, path := cluster(t, false), filepath.Join(t.TempDir(), "k")
	if _, err := create(t, client, Options{Output: path}); err != nil {
		t.Fatal(err)
	}
	client.ClearActions()
	if _, err := create(t, client, Options{Output: path, Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, action := range client.Actions() {
		if verb := action.GetVerb(); verb != "get" && verb != "list" && verb != "watch" {
			t.Errorf("%s %s changes something", verb, action.GetResource().Resource)
		}
	}
	if namespace, token := readKubeconfig(t, path); namespace != "berth" || token != "token-of-berth-token" {
		t.Errorf("namespace %s, token %s", namespace, token)
	}
}

func TestRightsOfAnEarlierRunGo(t *testing.T) {
	client, dir := cluster(t, false), t.TempDir()
	if _, err := create(t, client, Options{Output: filepath.Join(dir, "a"), Profiles: []string{"clusters,metrics"}}); err != nil {
		t.Fatal(err)
	}
	role, _ := client.RbacV1().Roles("berth").Get(t.Context(), "berth", metav1.GetOptions{})
	more := len(role.Rules)
	if _, err := create(t, client, Options{Output: filepath.Join(dir, "b")}); err != nil {
		t.Fatal(err)
	}
	role, _ = client.RbacV1().Roles("berth").Get(t.Context(), "berth", metav1.GetOptions{})
	if len(role.Rules) != 6 || more != 9 {
		t.Errorf("%d rules, and %d before", len(role.Rules), more)
	}
}

func TestABindingToAnotherRoleIsReplaced(t *testing.T) {
	client := cluster(t, false)
	other := roleBindingManifest("berth")
	other.RoleRef.Name = "admin"
	if _, err := client.RbacV1().RoleBindings("berth").Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, client, Options{Output: filepath.Join(t.TempDir(), "k")}); err != nil {
		t.Fatal(err)
	}
	binding, _ := client.RbacV1().RoleBindings("berth").Get(t.Context(), "berth", metav1.GetOptions{})
	if binding.RoleRef.Name != "berth" {
		t.Errorf("bound to %s still", binding.RoleRef.Name)
	}
}

func TestRotate(t *testing.T) {
	client, path := cluster(t, true), filepath.Join(t.TempDir(), "k")
	if _, err := create(t, client, Options{Output: path}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, client, Options{Output: path, Force: true, Rotate: true}); err != nil {
		t.Fatal(err)
	}
	_, token := readKubeconfig(t, path)
	if token == "token-of-berth-token" || !strings.HasPrefix(token, "token-of-berth-token-") {
		t.Errorf("token %s: the same name would give the same token", token)
	}
	secrets, _ := client.CoreV1().Secrets("berth").List(t.Context(), metav1.ListOptions{})
	if len(secrets.Items) != 1 || secrets.Items[0].Name == "berth-token" {
		t.Errorf("the token before is still there: %d Secrets", len(secrets.Items))
	}
	if _, err := create(t, client, Options{Output: path, Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, again := readKubeconfig(t, path); again != token {
		t.Errorf("token %s after the rotation, then %s", token, again)
	}
}

func TestTTL(t *testing.T) {
	client, path := cluster(t, false), filepath.Join(t.TempDir(), "k")
	stderr, err := create(t, client, Options{Output: path, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, token := readKubeconfig(t, path); token != "token-that-expires" {
		t.Errorf("token %s", token)
	}
	if !strings.Contains(stderr, "expires on 20") {
		t.Errorf("not said when: %s", stderr)
	}
	if secrets, _ := client.CoreV1().Secrets("berth").List(t.Context(), metav1.ListOptions{}); len(secrets.Items) != 0 {
		t.Error("a token that does not expire was made as well")
	}
	if _, err := create(t, client, Options{Output: path, TTL: time.Minute}); berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), "10m") {
		t.Errorf("a minute: %v", err)
	}
}

func TestNothingIsMadeWhenTheFileExists(t *testing.T) {
	client, path := cluster(t, false), filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := create(t, client, Options{Output: path})
	if berth.CodeOf(err) != berth.CodeConflict || !strings.Contains(err.Error(), "--force") {
		t.Errorf("got %v", err)
	}
	_, err = create(t, client, Options{Output: filepath.Join(path, "below")})
	if berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("no folder: %v", err)
	}
	if len(client.Actions()) > 0 {
		t.Errorf("%d calls were made", len(client.Actions()))
	}
	if data, _ := os.ReadFile(path); string(data) != "precious" {
		t.Errorf("the file is now %s", data)
	}
}

func TestANamespaceThatOneWasGiven(t *testing.T) {
	client := cluster(t, false)
	forbidden := func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, "berth", nil)
	}
	client.PrependReactor("get", "namespaces", forbidden)
	client.PrependReactor("create", "namespaces", forbidden)
	if _, err := create(t, client, Options{Output: filepath.Join(t.TempDir(), "k")}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestForbiddenSaysWhoCanHelp(t *testing.T) {
	client := cluster(t, false)
	client.PrependReactor("create", "roles", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "roles"}, "berth", nil)
	})
	path := filepath.Join(t.TempDir(), "k")
	_, err := create(t, client, Options{Output: path})
	if berth.CodeOf(err) != berth.CodeForbidden || !strings.Contains(err.Error(), "--dry-run") || !strings.Contains(err.Error(), "role berth") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a kubeconfig without rights was written")
	}
}

func TestDryRunContactsNobody(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	var out bytes.Buffer
	err := Create(context.Background(), Options{Namespace: "work", DryRun: true, Profiles: []string{"metrics"}}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "dry-run.yaml")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestBadAdminKubeconfigs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const complete = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: s3cret}}]\n"
	for _, tt := range []struct {
		name, kubeconfig, context, want string
		code                            berth.ErrorCode
	}{
		{"missing", filepath.Join(dir, "gone"), "", "does not exist", berth.CodeInvalid},
		{"empty", write("empty", ""), "", "you need access", berth.CodeInvalid},
		{"not YAML", write("bad", "{s3cret: ["), "", "is not a kubeconfig", berth.CodeInvalid},
		{"another context", write("good", complete), "other", "choose one with --context: c", berth.CodeInvalid},
		{"not verified", write("insecure", strings.Replace(complete, "1:1'", "1:1', insecure-skip-tls-verify: true", 1)), "", "turns off the verification", berth.CodeInvalid},
		{"a dead server", write("dead", complete), "", "can't be reached", berth.CodeUnavailable},
	} {
		path := filepath.Join(dir, "out")
		err := Create(t.Context(), Options{Output: path, AdminKubeconfig: tt.kubeconfig, AdminContext: tt.context}, io.Discard, io.Discard)
		if berth.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: a file was written", tt.name)
		}
	}
	good := filepath.Join(dir, "good")
	if err := Create(t.Context(), Options{Output: good, Force: true, AdminKubeconfig: good}, io.Discard, io.Discard); berth.CodeOf(err) != berth.CodeConflict || !strings.Contains(err.Error(), "your own kubeconfig") {
		t.Errorf("over the admin's own: %v", err)
	}
	t.Setenv("KUBECONFIG", filepath.Join(dir, "nowhere"))
	if err := Create(t.Context(), Options{Output: filepath.Join(dir, "out")}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "nowhere")) {
		t.Errorf("without any: %v", err)
	}
}
