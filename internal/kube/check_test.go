package kube

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/berth-run/berth"
)

func decodeProtobuf(r *http.Request, into runtime.Object) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, _, _ = scheme.Codecs.UniversalDeserializer().Decode(body, nil, into)
}

func decodePod(r *http.Request) *corev1.Pod {
	pod := &corev1.Pod{}
	decodeProtobuf(r, pod)
	pod.Kind, pod.APIVersion = "Pod", "v1"
	return pod
}

func checkOf(t *testing.T, s *apiServer) (berth.InfrastructureCheck, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: first}"), 0o600)
	infra := configInfra(path)
	infra.Namespace = "work"
	c, err := NewClient(infra, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(t.Context())
}

func rowOf(check berth.InfrastructureCheck, what string) berth.CheckRow {
	for _, row := range check.Rows {
		if row.What == what {
			return row
		}
	}
	return berth.CheckRow{}
}

// grantTasksOnly denies what the other profiles grant.
func grantTasksOnly(s *apiServer) {
	s.denied = map[string]bool{}
	for _, what := range []string{
		"create secrets", "update secrets", "get secrets", "delete secrets",
		"create pods/portforward", "get pods/portforward", "list pods.metrics.k8s.io",
	} {
		s.denied[what] = true
	}
}

func TestCheckOfAWellPreparedNamespace(t *testing.T) {
	s := newAPIServer(t, "first")
	grantTasksOnly(s)
	check, err := checkOf(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if !check.OK || check.ServerVersion != "v1.34.4" || check.Latency <= 0 || check.Namespace != "work" {
		t.Errorf("got %+v", check)
	}
	for _, row := range check.Rows {
		if row.Status != berth.CheckOK || row.Remedy != "" {
			t.Errorf("row %+v", row)
		}
	}
	if rowOf(check, "get pods/log").Status != berth.CheckOK {
		t.Error("a subresource has no row")
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	s := newAPIServer(t, "first")
	grantTasksOnly(s)
	s.denied["delete pods"], s.denied["watch events"] = true, true
	delete(s.denied, "get secrets") // so the profile clusters was wanted
	check, err := checkOf(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if check.OK {
		t.Error("OK without a verb that tasks need")
	}
	for what, status := range map[string]berth.CheckStatus{
		"delete pods":    berth.CheckMissing,
		"watch events":   berth.CheckWarning, // tasks run without it
		"create secrets": berth.CheckWarning, // tasks don't need it
		"get secrets":    berth.CheckOK,
	} {
		row := rowOf(check, what)
		if row.Status != status {
			t.Errorf("%s is %q, want %q", what, row.Status, status)
		}
		if status != berth.CheckOK && !strings.Contains(row.Remedy, "berth create-kubeconfig -n work") {
			t.Errorf("%s: remedy %q", what, row.Remedy)
		}
	}
	if r := rowOf(check, "delete secrets").Remedy; !strings.Contains(r, "--profile clusters") {
		t.Errorf("remedy %q names no profile", r)
	}
}

func TestCheckOfTheNamespace(t *testing.T) {
	s := newAPIServer(t, "first")
	for code, status := range map[int]berth.CheckStatus{http.StatusNotFound: berth.CheckFailed, http.StatusForbidden: berth.CheckWarning} {
		s.nsStatus = code
		check, err := checkOf(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if row := rowOf(check, "namespace work"); row.Status != status || row.Remedy == "" {
			t.Errorf("%d: %+v", code, row)
		}
	}
}

func TestOldClustersAreRefusedByName(t *testing.T) {
	s := newAPIServer(t, "first")
	s.version = "v1.28.9+k3s1"
	check, err := checkOf(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if row := rowOf(check, "server version"); check.OK || row.Status != berth.CheckFailed || !strings.Contains(row.Detail, "v1.28.9") || !strings.Contains(row.Detail, "1.29") {
		t.Errorf("got %+v", row)
	}
	for version, ok := range map[string]bool{"v1.29.0": true, "v1.34.4-gke.100": true, "v2.0.0": true, "1.9.1": false, "v1.28.15": false, "unknown": true} {
		if err := CheckVersion(version); (err == nil) != ok {
			t.Errorf("CheckVersion(%q) = %v", version, err)
		}
	}
}

func TestCheckOfAClusterThatDoesNotAnswer(t *testing.T) {
	s := newAPIServer(t, "other")
	if _, err := checkOf(t, s); berth.CodeOf(err) != berth.CodeUnauthorized || !strings.Contains(err.Error(), "create-kubeconfig") {
		t.Errorf("wrong token: %v", err)
	}
	s.Close()
	if _, err := checkOf(t, s); berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("dead server: %v", err)
	}
}
