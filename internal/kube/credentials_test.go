package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// certificate makes a client certificate, PEM, that ends then.
func certificate(t *testing.T, notAfter time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// kubeconfigText fills in a kubeconfig with one context.
func kubeconfigText(cluster, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
contexts:
- name: c
  context: {cluster: k, user: u, namespace: from-context}
clusters:
- name: k
  cluster: %s
users:
- name: u
  user: %s
`, cluster, user)
}

func configInfra(path string) berth.InfrastructureConfig {
	return berth.InfrastructureConfig{Name: "site", Kind: "kube", Credentials: berth.Credentials{Mechanism: "config", Path: path}}
}

func TestBadKubeconfigsSayWhatToDo(t *testing.T) {
	cert, key := certificate(t, time.Now().Add(-time.Hour))
	b64 := base64.StdEncoding.EncodeToString
	const cluster = "{server: 'https://example.com:6443'}"
	for _, tt := range []struct {
		name, text, context string
		want                []string
		code                berth.ErrorCode
	}{
		{name: "empty", text: "\n", want: []string{"is empty"}},
		{name: "not YAML", text: "{s3cret: [", want: []string{"is not a kubeconfig"}},
		{name: "another kind of YAML", text: "s3cret", want: []string{"is not a kubeconfig"}},
		{name: "of another program", text: "foo: s3cret\n", want: []string{"has no contexts"}},
		{name: "no contexts", text: "apiVersion: v1\nkind: Config\n", want: []string{"has no contexts", "create-kubeconfig"}},
		{name: "no current-context", text: strings.Replace(kubeconfigText(cluster, "{token: s3cret}"), "current-context: c", "", 1), want: []string{"no current-context", "credentials.context", ": c"}},
		{name: "dangling current-context", text: strings.Replace(kubeconfigText(cluster, "{token: s3cret}"), "current-context: c", "current-context: x", 1), want: []string{`"x"`, "no context of that name"}},
		{name: "unknown context asked for", text: kubeconfigText(cluster, "{token: s3cret}"), context: "other", want: []string{`no context "other"`, "it has: c"}},
		{name: "missing cluster", text: strings.Replace(kubeconfigText(cluster, "{token: s3cret}"), "cluster: k,", "cluster: gone,", 1), want: []string{`cluster "gone"`}},
		{name: "missing user", text: strings.Replace(kubeconfigText(cluster, "{token: s3cret}"), "user: u,", "user: gone,", 1), want: []string{`user "gone"`}},
		{name: "no server", text: kubeconfigText("{}", "{token: s3cret}"), want: []string{"has no server"}},
		{name: "server is no URL", text: kubeconfigText("{server: 'ftp://example.com'}", "{token: s3cret}"), want: []string{"not a URL"}},
		{name: "server not encrypted", text: kubeconfigText("{server: 'http://example.com'}", "{token: s3cret}"), want: []string{"not encrypted", "https://"}},
		{name: "CA is not PEM", text: kubeconfigText("{server: 'https://example.com', certificate-authority-data: "+b64([]byte("nonsense"))+"}", "{token: s3cret}"), want: []string{"certificate-authority-data", "unreadable"}},
		{name: "CA base64 twice", text: kubeconfigText("{server: 'https://example.com', certificate-authority-data: "+b64([]byte(b64(cert)))+"}", "{token: s3cret}"), want: []string{"base64 twice"}},
		{name: "CA is not a certificate", text: kubeconfigText("{server: 'https://example.com', certificate-authority-data: "+b64([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))+"}", "{token: s3cret}"), want: []string{"CA certificate"}},
		{name: "CA file missing", text: kubeconfigText("{server: 'https://example.com', certificate-authority: gone.crt}", "{token: s3cret}"), want: []string{"certificate-authority", "gone.crt", "--flatten"}},
		{name: "client certificate file missing", text: kubeconfigText(cluster, "{client-certificate: gone.crt, client-key: gone.key}"), want: []string{"client-certificate", "gone.crt"}},
		{name: "token file missing", text: kubeconfigText(cluster, "{tokenFile: gone}"), want: []string{"tokenFile", "gone"}},
		{name: "expired client certificate", text: kubeconfigText(cluster, fmt.Sprintf("{client-certificate-data: %s, client-key-data: %s}", b64(cert), b64(key))), want: []string{"expired on 20", "create-kubeconfig"}, code: berth.CodeUnauthorized},
		{name: "TLS not verified", text: kubeconfigText("{server: 'https://example.com', insecure-skip-tls-verify: true}", "{token: s3cret}"), want: []string{"insecure_skip_tls_verify: true"}},
		{name: "auth-provider", text: kubeconfigText(cluster, "{auth-provider: {name: gcp}}"), want: []string{`"gcp"`, "exec plugin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kubeconfig")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			infra := configInfra(path)
			infra.Credentials.Context = tt.context
			_, err := NewClient(infra, Options{})
			if err == nil {
				t.Fatal("accepted")
			}
			if tt.code == "" {
				tt.code = berth.CodeInvalid
			}
			if berth.CodeOf(err) != tt.code {
				t.Errorf("code is %s, want %s", berth.CodeOf(err), tt.code)
			}
			for _, want := range append(tt.want, path, "site") {
				if want == path && (strings.Contains(tt.name, "certificate") || strings.Contains(tt.name, "server ") || strings.Contains(tt.name, "CA is not a")) {
					continue // checked after reading, for every mechanism alike
				}
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not mention %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q tells a secret", err)
			}
		})
	}
}

func TestMissingKubeconfig(t *testing.T) {
	_, _, err := RESTConfig(configInfra("/nowhere/kubeconfig"))
	if err == nil || !strings.Contains(err.Error(), "/nowhere/kubeconfig does not exist") || berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("got %v", err)
	}
}

func TestRESTConfigOfAKubeconfig(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kubeconfig")
	text := kubeconfigText("{server: 'https://example.com:6443', proxy-url: 'socks5://proxy:1080', tls-server-name: other}", "{tokenFile: token}")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, namespace, err := RESTConfig(configInfra(path))
	if err != nil {
		t.Fatal(err)
	}
	if namespace != "from-context" || config.Host != "https://example.com:6443" || config.ServerName != "other" || config.QPS != -1 || config.Timeout != 0 {
		t.Errorf("namespace %s, config %v", namespace, config)
	}
	if config.BearerTokenFile != filepath.Join(dir, "token") {
		t.Errorf("token file %q is not relative to the kubeconfig", config.BearerTokenFile)
	}
	if config.Proxy == nil {
		t.Error("proxy-url is ignored")
	}
	if !strings.HasPrefix(config.UserAgent, "berth/") || config.ContentType != "application/vnd.kubernetes.protobuf" {
		t.Errorf("user agent %q, content type %q", config.UserAgent, config.ContentType)
	}
	infra := configInfra(path)
	infra.Namespace = "from-infra"
	if _, namespace, _ := RESTConfig(infra); namespace != "from-infra" {
		t.Errorf("namespace %s: infra.yml's own is the one that counts", namespace)
	}
}

func TestServiceAccount(t *testing.T) {
	ca, _ := certificate(t, time.Now().Add(time.Hour))
	infra := berth.InfrastructureConfig{Name: "site", Namespace: "work", Credentials: berth.Credentials{
		Mechanism: "service-account", Host: "https://example.com", Token: "s3cret",
	}}
	_, _, err := RESTConfig(infra)
	if err == nil || !strings.Contains(err.Error(), "kubectl get configmap kube-root-ca.crt -n work") {
		t.Errorf("without a CA: %v", err)
	}
	infra.Credentials.CA = string(ca)
	config, namespace, err := RESTConfig(infra)
	if err != nil {
		t.Fatal(err)
	}
	if config.BearerToken != "s3cret" || string(config.CAData) != string(ca) || namespace != "work" || config.Insecure {
		t.Errorf("namespace %s, config %v", namespace, config)
	}
	infra.Credentials.CA, infra.InsecureSkipTLSVerify = "", true
	if config, _, err = RESTConfig(infra); err != nil || !config.Insecure {
		t.Errorf("asked for by name: %v, %v", config, err)
	}
}

func TestInClusterOutsideOfACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	infra := berth.InfrastructureConfig{Name: "site", Credentials: berth.Credentials{Mechanism: "in-cluster"}}
	if _, _, err := RESTConfig(infra); err == nil || !strings.Contains(err.Error(), "only inside a pod") {
		t.Errorf("got %v", err)
	}
}

func TestAddressMismatchIsAWarning(t *testing.T) {
	for _, tt := range []struct {
		address, server string
		want            bool
	}{
		{"", "https://example.com", false},
		{"example.com:6443", "https://example.com:6443", false},
		{"https://EXAMPLE.com", "https://example.com:443", false},
		{"example.com:6443", "https://example.com", true},
		{"other.com:6443", "https://example.com:6443", true},
	} {
		if got := addressMismatch(berth.InfrastructureConfig{Address: tt.address}, tt.server); (got != "") != tt.want {
			t.Errorf("addressMismatch(%q, %q) = %q", tt.address, tt.server, got)
		}
	}
}
