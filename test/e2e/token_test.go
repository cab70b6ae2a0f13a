//go:build e2e

package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth/internal/permissions"
)

// create runs create-kubeconfig for the site's namespace, as the engineer who
// made it would, and overwrites the site's file.
func (s *site) create(more ...string) result {
	s.t.Helper()
	args := append([]string{"create-kubeconfig", "--namespace", s.namespace, "-o", s.kubeconfig, "--force"}, more...)
	r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, args...)
	if r.code != 0 {
		s.t.Fatalf("create-kubeconfig %s: exit %d\n%s", strings.Join(more, " "), r.code, r.stderr)
	}
	return r
}

// token is the one in the site's kubeconfig.
func (s *site) token() (token string) {
	s.t.Helper()
	s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) { token = user.Token })
	return token
}

// rejected waits until the API server no longer accepts a token: it remembers
// an accepted one for some seconds.
func rejected(t *testing.T, token string) {
	t.Helper()
	waitFor(t, "the token is refused", 90*time.Second, func() bool {
		review, err := admin.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		return err == nil && !review.Status.Authenticated
	})
}

// reissue signs a token of the cluster anew, as if it had been issued and were
// to expire at other times.
func reissue(t *testing.T, token string, issued, expires time.Time) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(err)
	var claims map[string]any
	must(json.Unmarshal(payload, &claims))
	claims["iat"], claims["nbf"], claims["exp"] = issued.Unix(), issued.Unix(), expires.Unix()
	payload, err = json.Marshal(claims)
	must(err)
	text, err := os.ReadFile(statePath(t, "pki/sa.key"))
	must(err)
	block, _ := pem.Decode(text)
	key, err := parseKey(block.Bytes)
	must(err)
	sign := func(algorithm string, signature func([]byte) ([]byte, error)) string {
		signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"`+algorithm+`"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
		digest := sha256.Sum256([]byte(signed))
		bytes, err := signature(digest[:])
		must(err)
		return signed + "." + base64.RawURLEncoding.EncodeToString(bytes)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return sign("RS256", func(digest []byte) ([]byte, error) { return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest) })
	case *ecdsa.PrivateKey:
		return sign("ES256", func(digest []byte) ([]byte, error) {
			r, s, err := ecdsa.Sign(rand.Reader, key, digest)
			if err != nil {
				return nil, err
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
		})
	}
	t.Fatalf("the cluster signs with a %T", key)
	return ""
}

func parseKey(der []byte) (any, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParsePKCS8PrivateKey(der)
}

// A token from --ttl is renewed while Berth runs, so that work goes on after it
// has expired; the kubeconfig stays as it is.
func TestAccessThatExpiresIsRenewed(t *testing.T) {
	s := newSite(t)
	s.create("--ttl", "10m")
	s.profiles = append(s.profiles, permissions.Renewal)
	// Servers allow for a minute by which clocks may differ.
	old := reissue(t, s.token(), time.Now().Add(-10*time.Minute), time.Now().Add(-40*time.Second))
	s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) { user.Token = old })
	before, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	run := s.start("run", "--name", "long", busybox, "sh", "-c", "echo begun; "+forever)
	waitFor(t, "it runs", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), "begun") })
	rejected(t, old)
	if got := s.must("run", busybox, "echo", "goes on"); got != "goes on\n" {
		t.Errorf("output %q", got)
	}
	s.must("task", "cancel", s.byName("long"))
	run.wait(within(t, 60*time.Second))
	// A process that begins after the token has expired goes on as well.
	s.must("infra", "check")
	if got := s.must("run", busybox, "echo", "and on"); got != "and on\n" {
		t.Errorf("output %q", got)
	}
	if after, err := os.ReadFile(s.kubeconfig); err != nil || string(after) != string(before) {
		t.Errorf("the kubeconfig was changed: %v", err)
	}
	asked := 0
	for _, r := range s.requests() {
		if r.uses() == "create serviceaccounts/token" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("%d tokens were asked for", asked)
	}
}

func TestAccessThatMayNotBeRenewed(t *testing.T) {
	s := newSite(t)
	r := s.create("--ttl", "10m", "--no-renewal")
	if !strings.Contains(r.stderr, "can't be renewed") {
		t.Errorf("not said:\n%s", r.stderr)
	}
	token := reissue(t, s.token(), time.Now().Add(-8*time.Minute), time.Now().Add(2*time.Minute))
	s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) { user.Token = token })
	if r := s.berth("-v", "run", busybox, "echo", "hello"); r.stdout != "hello\n" || strings.Contains(r.stderr, token) {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	for _, r := range s.requests() {
		if r.uses() == "create serviceaccounts/token" {
			t.Errorf("a token was asked for: %d", r.ResponseStatus.Code)
		}
	}
}

func TestAccessRotatedEndsTokensThatExpireToo(t *testing.T) {
	s := newSite(t)
	s.create("--ttl", "30m")
	old := s.token()
	s.must("infra", "check")
	if r := s.create("--ttl", "30m", "--rotate"); !strings.Contains(r.stderr, "made anew") {
		t.Errorf("not said:\n%s", r.stderr)
	}
	rejected(t, old)
	s.must("infra", "check")
	if got := s.must("run", busybox, "echo", "rotated"); got != "rotated\n" {
		t.Errorf("output %q", got)
	}
}

func TestAccessRevoked(t *testing.T) {
	s := newSite(t)
	s.mayBeRefused = true
	expiring := filepath.Join(s.dir, "expiring")
	if r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, "create-kubeconfig", "--namespace", s.namespace, "-o", expiring, "--ttl", "1h"); r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	lasting := s.token()
	id := s.detach(busybox, "sh", "-c", forever)
	waitFor(t, "it has a pod", 30*time.Second, func() bool { return len(s.pods()) == 1 })

	r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, "create-kubeconfig", "--namespace", s.namespace, "--revoke")
	if r.code != 0 || !strings.Contains(r.stderr, "worthless") || !strings.Contains(r.stderr, "1 pods of Berth still run") {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	rejected(t, lasting)
	short := &site{t: t, dir: s.dir, namespace: s.namespace, kubeconfig: expiring}
	rejected(t, short.token())
	if _, err := admin.RbacV1().Roles(s.namespace).Get(t.Context(), "berth", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the role: %v", err)
	}
	if _, err := admin.CoreV1().Namespaces().Get(t.Context(), s.namespace, metav1.GetOptions{}); err != nil {
		t.Errorf("the namespace: %v", err)
	}
	if r := s.berth("infra", "check"); r.code == 0 || !strings.Contains(r.stderr, "does not accept the credentials") {
		t.Errorf("infra check: exit %d\n%s", r.code, r.stderr)
	}

	// Whoever is given access anew finds the work where it was.
	s.create()
	if r := s.berth("task", "cancel", id); r.code != 0 {
		t.Errorf("cancel: exit %d\n%s", r.code, r.stderr)
	}
}
