//go:build e2e

package e2e

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// A registry that is not of the own control plane takes packages with the
// credentials of docker's configuration, and the nodes pull with them. Here it
// is that of another team's server.
func TestPackagesGoToAnExternalRegistryWithCredentials(t *testing.T) {
	other := newOffice(t, false, "")
	token := strings.TrimSpace(other.must("server", "token", "create", "registry"))
	s := newSite(t, "functions")
	s.infra("registry: " + other.address + "\n")
	login := func(password string) string {
		t.Helper()
		dir := t.TempDir()
		auth := base64.StdEncoding.EncodeToString([]byte("me:" + password))
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"`+other.address+`":{"auth":"`+auth+`"}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	env := func(password string) []string {
		return []string{"DOCKER_CONFIG=" + login(password), "SSL_CERT_FILE=" + filepath.Join(other.dir, ".berth", "ca.pem")}
	}
	s.build("arithmetic-bash")

	// With a wrong password nothing is stored and nothing is created.
	r := s.berthEnv(env("wrong"), "call", "arithmetic-bash", "add", "a=3", "b=4")
	if r.code != berth.ExitNone || !strings.Contains(r.stderr, other.address) || strings.Contains(r.stderr, "wrong\"") {
		t.Errorf("with a wrong password: exit %d: %s", r.code, r.stderr)
	}
	if n := len(s.tasks()); n != 0 {
		t.Errorf("with a wrong password: %d tasks", n)
	}

	r = s.berthEnv(env(token), "call", "arithmetic-bash", "add", "a=3", "b=4")
	if r.code != 0 || r.stdout != "7\n" {
		t.Fatalf("exit %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
	if got := s.tasks()[0].Spec.Image; !strings.HasPrefix(got, other.address+"/arithmetic-bash@sha256:") {
		t.Errorf("the image was %s", got)
	}
	if got := other.must("package", "list"); !strings.Contains(got, "arithmetic-bash") {
		t.Errorf("the registry has\n%s", got)
	}
	secrets, err := admin.CoreV1().Secrets(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	logins := 0
	for _, secret := range secrets.Items {
		if secret.Type == corev1.SecretTypeDockerConfigJson {
			logins++
		}
	}
	if logins != 1 {
		t.Errorf("the namespace has %d logins of registries", logins)
	}
}
