package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// apiServer is an API server as far as credentials go: it takes one token at a
// time, and answers the few calls that the tests make.
type apiServer struct {
	*httptest.Server
	token    atomic.Value // string
	refused  atomic.Int64
	bodies   sync.Map // name of a pod -> the body arrived whole
	version  string
	denied   map[string]bool // "verb resource/subresource"
	nsStatus int
	next     string       // the token that a TokenRequest gives, and that holds from then on
	requests atomic.Int64 // of tokens

	onCreate func(*corev1.Pod) *metav1.Status // what a pod is refused with; nil: it is accepted
	dryRuns  atomic.Int64
	quotas   []corev1.ResourceQuota
	ranges   []corev1.LimitRange
}

func newAPIServer(t *testing.T, token string) *apiServer {
	t.Helper()
	s := &apiServer{version: "v1.34.4", nsStatus: http.StatusOK}
	s.token.Store(token)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	status := func(code int, reason metav1.StatusReason) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: string(reason)})
	}
	answer := func(object any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object)
	}
	if r.Header.Get("Authorization") != "Bearer "+s.token.Load().(string) {
		s.refused.Add(1)
		status(http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
		return
	}
	switch {
	case r.URL.Path == "/version":
		answer(map[string]string{"gitVersion": s.version, "major": "1", "minor": "34"})
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		s.review(w, r)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/serviceaccounts/berth/token"):
		s.requests.Add(1)
		s.token.Store(s.next)
		answer(authenticationv1.TokenRequest{TypeMeta: metav1.TypeMeta{Kind: "TokenRequest", APIVersion: "authentication.k8s.io/v1"}, Status: authenticationv1.TokenRequestStatus{Token: s.next}})
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/pods"):
		pod := decodePod(r)
		s.bodies.Store(pod.Name, true)
		if r.URL.Query().Get("dryRun") == metav1.DryRunAll {
			s.dryRuns.Add(1)
		}
		if s.onCreate != nil {
			if refused := s.onCreate(pod); refused != nil {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(int(refused.Code))
				refused.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
				_ = json.NewEncoder(w).Encode(refused)
				return
			}
		}
		answer(pod)
	case strings.HasSuffix(r.URL.Path, "/pods") && s.denied["list pods"]:
		status(http.StatusForbidden, metav1.StatusReasonForbidden)
	case strings.HasSuffix(r.URL.Path, "/pods"):
		answer(corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}})
	case strings.HasSuffix(r.URL.Path, "/resourcequotas"):
		answer(corev1.ResourceQuotaList{TypeMeta: metav1.TypeMeta{Kind: "ResourceQuotaList", APIVersion: "v1"}, Items: s.quotas})
	case strings.HasSuffix(r.URL.Path, "/limitranges"):
		answer(corev1.LimitRangeList{TypeMeta: metav1.TypeMeta{Kind: "LimitRangeList", APIVersion: "v1"}, Items: s.ranges})
	case s.nsStatus != http.StatusOK:
		status(s.nsStatus, map[int]metav1.StatusReason{404: metav1.StatusReasonNotFound, 403: metav1.StatusReasonForbidden}[s.nsStatus])
	default:
		answer(corev1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "work"}})
	}
}

// review decodes what the client sends in protobuf.
func (s *apiServer) review(w http.ResponseWriter, r *http.Request) {
	var review authorizationv1.SelfSubjectAccessReview
	decodeProtobuf(r, &review)
	a := review.Spec.ResourceAttributes
	what := a.Verb + " " + a.Resource
	if a.Group != "" {
		what += "." + a.Group
	}
	if a.Subresource != "" {
		what += "/" + a.Subresource
	}
	review.TypeMeta = metav1.TypeMeta{Kind: "SelfSubjectAccessReview", APIVersion: "authorization.k8s.io/v1"}
	review.Status.Allowed = !s.denied[what]
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// clusterYAML is the cluster of a kubeconfig for this server.
func (s *apiServer) clusterYAML() string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return fmt.Sprintf("{server: '%s', certificate-authority-data: %s}", s.URL, base64.StdEncoding.EncodeToString(ca))
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, path); err != nil {
		t.Fatal(err)
	}
}

func listPods(t *testing.T, c *Client) error {
	t.Helper()
	_, err := c.Clientset.CoreV1().Pods(c.Namespace).List(t.Context(), metav1.ListOptions{})
	return err
}

func TestTokenRotatedInTheKubeconfigMidRun(t *testing.T) {
	s := newAPIServer(t, "first")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: first}"), 0o600)
	c, err := NewClient(configInfra(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := listPods(t, c); err != nil {
		t.Fatal(err)
	}

	s.token.Store("second")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: second}"), 0o600)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	if _, err := c.Clientset.CoreV1().Pods("work").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatalf("the request did not survive the rotation: %v", err)
	}
	if _, arrived := s.bodies.Load("p"); !arrived {
		t.Error("the body of the repeated request did not arrive")
	}
}

func TestUnchangedCredentialsAreRefusedAsTheyAre(t *testing.T) {
	s := newAPIServer(t, "good")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: bad}"), 0o600)
	c, err := NewClient(configInfra(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := listPods(t, c); !apierrors.IsUnauthorized(err) {
		t.Fatalf("got %v, want 401", err)
	}
	if n := s.refused.Load(); n != 1 {
		t.Errorf("%d requests were made; repeating one with the same credentials is of no use", n)
	}
}

func TestStormOfRefusalsReadsOnce(t *testing.T) {
	s := newAPIServer(t, "first")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: first}"), 0o600)
	c, err := NewClient(configInfra(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int64
	read := c.transport.read
	c.transport.read = func() (*access, error) { reads.Add(1); return read() }

	s.token.Store("second")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: second}"), 0o600)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := listPods(t, c); err != nil {
				t.Errorf("in the storm: %v", err)
			}
		})
	}
	wg.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("the credentials were read %d times", n)
	}
}

func TestTokenFileRotated(t *testing.T) {
	s := newAPIServer(t, "first")
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	writeFile(t, token, "first", 0o600)
	c, err := NewClient(berth.InfrastructureConfig{Name: "site", Namespace: "work", Credentials: berth.Credentials{
		Mechanism: "service-account", Host: s.URL, TokenFile: token,
		CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})),
	}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := listPods(t, c); err != nil {
		t.Fatal(err)
	}
	s.token.Store("second")
	writeFile(t, token, "second\n", 0o600)
	if err := listPods(t, c); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// execPlugin writes a plugin that prints the token in a file.
func execPlugin(t *testing.T, dir, expires string) string {
	t.Helper()
	script := filepath.Join(dir, "plugin")
	writeFile(t, script, fmt.Sprintf(`#!/bin/sh
echo run >> %[1]s/runs
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%%s"%[2]s}}' "$(cat %[1]s/token)"
`, dir, expires), 0o700)
	return fmt.Sprintf("{exec: {apiVersion: client.authentication.k8s.io/v1, command: %s, interactiveMode: IfAvailable}}", script)
}

func TestExecPluginIsRunAgainWhenItsTokenExpires(t *testing.T) {
	s := newAPIServer(t, "first")
	for name, expires := range map[string]string{
		"expiry in the past": `,"expirationTimestamp":"2020-01-01T00:00:00Z"`,
		"expiry unknown":     "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s.token.Store("first")
			writeFile(t, filepath.Join(dir, "token"), "first", 0o600)
			path := filepath.Join(dir, "kubeconfig")
			writeFile(t, path, kubeconfigText(s.clusterYAML(), execPlugin(t, dir, expires)), 0o600)
			c, err := NewClient(configInfra(path), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := listPods(t, c); err != nil {
				t.Fatal(err)
			}
			s.token.Store("second")
			writeFile(t, filepath.Join(dir, "token"), "second", 0o600)
			if err := listPods(t, c); err != nil {
				t.Errorf("in mid-run: %v", err)
			}
		})
	}
}

func TestExecPluginThatHangsHoldsNobody(t *testing.T) {
	s := newAPIServer(t, "first")
	dir := t.TempDir()
	script := filepath.Join(dir, "plugin")
	writeFile(t, script, "#!/bin/sh\nexec cat "+filepath.Join(dir, "fifo")+"\n", 0o700)
	hangUntilTheEnd(t, filepath.Join(dir, "fifo"))
	path := filepath.Join(dir, "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), fmt.Sprintf("{exec: {apiVersion: client.authentication.k8s.io/v1, command: %s, interactiveMode: Never}}", script)), 0o600)
	c, err := NewClient(configInfra(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.Clientset.CoreV1().Pods("work").List(ctx, metav1.ListOptions{})
	if err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

func TestWrongCAIsRefused(t *testing.T) {
	s := newAPIServer(t, "first")
	ca, _ := certificate(t, time.Now().Add(time.Hour))
	path := filepath.Join(t.TempDir(), "kubeconfig")
	cluster := fmt.Sprintf("{server: '%s', certificate-authority-data: %s}", s.URL, base64.StdEncoding.EncodeToString(ca))
	writeFile(t, path, kubeconfigText(cluster, "{token: first}"), 0o600)
	c, err := NewClient(configInfra(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Check(t.Context())
	if berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

// hangUntilTheEnd makes a file that a reader waits for until the test is over.
func hangUntilTheEnd(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			_ = f.Close()
		}
	})
}
