package kube

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/version"
)

// inClusterNamespace is where the kubelet tells a pod its own namespace.
const inClusterNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// access is everything needed to talk to one namespace, as read at one moment.
type access struct {
	config      *rest.Config
	namespace   string
	fingerprint [sha256.Size]byte // of all that was read: another one means other credentials
	source      string            // what a renewed token is of
}

// RESTConfig turns an entry of infra.yml into a configuration for client-go and
// the namespace to work in. The errors are for a person: CodeInvalid, or
// CodeUnauthorized for a client certificate that has expired.
func RESTConfig(infra berth.InfrastructureConfig) (*rest.Config, string, error) {
	a, err := readAccess(infra)
	if err != nil {
		return nil, "", err
	}
	return a.config, a.namespace, nil
}

// readAccess reads the credentials from their source, anew each time.
func readAccess(infra berth.InfrastructureConfig) (*access, error) {
	var a *access
	var err error
	switch infra.Credentials.Mechanism {
	case "config":
		a, err = fromKubeconfig(infra)
	case "service-account":
		a, err = fromServiceAccount(infra)
	case "in-cluster":
		a, err = fromPod(infra)
	default:
		err = fmt.Errorf("credentials mechanism %q: there are config, service-account and in-cluster", infra.Credentials.Mechanism)
	}
	if err == nil {
		err = checkAccess(a.config, infra)
	}
	if err != nil {
		return nil, berth.Errorf(codeOr(err, berth.CodeInvalid), "infrastructure %s: %w", infra.Name, err)
	}
	if infra.Namespace != "" {
		a.namespace = infra.Namespace
	}
	if a.namespace == "" {
		a.namespace = "default" // as kubectl does for a context without one
	}
	c := a.config
	c.UserAgent = "berth/" + version.String()
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.QPS = -1    // we limit what we do ourselves; client-go's 5 a second would throttle everything
	c.Timeout = 0 // each call has its own; a watch has none
	if c.ExecProvider != nil {
		// A plugin that asks a question would wait for ever in a server, and
		// would take the input of a command that has some.
		c.ExecProvider.StdinUnavailable = true
		c.ExecProvider.StdinUnavailableMessage = "berth never asks; log in with the plugin's own tool first"
	}
	return a, nil
}

// codeOr returns the code of an error for a person, or another for the rest.
func codeOr(err error, otherwise berth.ErrorCode) berth.ErrorCode {
	if code := berth.CodeOf(err); code != berth.CodeInternal {
		return code
	}
	return otherwise
}

func fromServiceAccount(infra berth.InfrastructureConfig) (*access, error) {
	cred := infra.Credentials
	config := &rest.Config{Host: cred.Host, BearerToken: cred.Token.Reveal(), BearerTokenFile: cred.TokenFile}
	seen := fingerprint{}
	seen.add([]byte(cred.Token.Reveal()), []byte(cred.CA))
	if cred.TokenFile != "" {
		token, err := readCredential(cred.TokenFile, "token_file")
		if err != nil {
			return nil, err
		}
		config.BearerToken = strings.TrimSpace(string(token))
		seen.add(token)
	}
	if config.BearerToken == "" {
		return nil, fmt.Errorf("credentials: the token is empty; make one with: kubectl create token NAME -n %s, or use berth create-kubeconfig", or(infra.Namespace, "NAMESPACE"))
	}
	config.CAData = []byte(cred.CA)
	if cred.CAFile != "" {
		ca, err := readCredential(cred.CAFile, "ca_file")
		if err != nil {
			return nil, err
		}
		config.CAData = ca
		seen.add(ca)
	}
	if infra.InsecureSkipTLSVerify {
		config.CAData, config.Insecure = nil, true
	} else if len(config.CAData) == 0 {
		return nil, fmt.Errorf(`credentials: the cluster's CA is missing, without which its server can't be verified; get it with: kubectl get configmap kube-root-ca.crt -n %s -o jsonpath='{.data.ca\.crt}' > ca.crt, and name it as ca_file`, or(infra.Namespace, "NAMESPACE"))
	}
	return &access{config: config, namespace: infra.Namespace, fingerprint: seen.sum()}, nil
}

// fromPod uses what the kubelet mounts into a pod with a service account.
func fromPod(infra berth.InfrastructureConfig) (*access, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("credentials mechanism in-cluster works only inside a pod with a mounted service account (%w); outside use mechanism config with a kubeconfig", err)
	}
	seen := fingerprint{}
	if config.BearerTokenFile != "" {
		token, err := readCredential(config.BearerTokenFile, "service account token")
		if err != nil {
			return nil, err
		}
		seen.add(token)
	}
	if infra.InsecureSkipTLSVerify {
		config.TLSClientConfig = rest.TLSClientConfig{Insecure: true}
	}
	namespace, _ := os.ReadFile(inClusterNamespace) // absent: the entry says, or default
	return &access{config: config, namespace: strings.TrimSpace(string(namespace)), fingerprint: seen.sum()}, nil
}

// checkAccess finds what would only show as a cryptic TLS error later.
func checkAccess(config *rest.Config, infra berth.InfrastructureConfig) error {
	server, err := url.Parse(config.Host)
	if err != nil || server.Host == "" || (server.Scheme != "https" && server.Scheme != "http") {
		return fmt.Errorf("the server's address %q is not a URL such as https://HOST:6443", redactURL(config.Host))
	}
	if server.Scheme == "http" && !loopback(server.Hostname()) && !infra.InsecureSkipTLSVerify {
		return fmt.Errorf("the server's address %s is not encrypted; use https://, or write insecure_skip_tls_verify: true for this infrastructure", redactURL(config.Host))
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		return fmt.Errorf("certificates can't be read: %w", err)
	}
	// In memory from here on: client-go would poll the files for changes, and
	// what has changed is read again after a 401 anyway.
	config.CAFile, config.CertFile, config.KeyFile = "", "", ""
	if len(config.CAData) > 0 && !x509.NewCertPool().AppendCertsFromPEM(config.CAData) {
		return fmt.Errorf("the CA certificate of the cluster can't be read: it is not PEM (BEGIN CERTIFICATE)")
	}
	return checkClientCertificate(config.CertData, time.Now())
}

func checkClientCertificate(data []byte, now time.Time) error {
	if len(data) == 0 {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return fmt.Errorf("the client certificate can't be read: it is not PEM (BEGIN CERTIFICATE)")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the client certificate can't be read: %w", err)
	}
	const again = "get a new kubeconfig from the cluster's engineer, or make one with berth create-kubeconfig"
	if now.After(cert.NotAfter) {
		return berth.Errorf(berth.CodeUnauthorized, "the client certificate expired on %s; %s", cert.NotAfter.UTC().Format(time.RFC3339), again)
	}
	if now.Add(time.Hour).Before(cert.NotBefore) { // an hour: clocks differ
		return berth.Errorf(berth.CodeUnauthorized, "the client certificate is valid only from %s on; is this machine's clock right (it says %s)?", cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// readCredential reads a small file that infra.yml or a kubeconfig names.
func readCredential(path, field string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return data, nil
}

// fingerprint tells whether credentials have changed, without keeping them.
type fingerprint struct{ parts []byte }

func (f *fingerprint) add(data ...[]byte) {
	for _, d := range data {
		sum := sha256.Sum256(d)
		f.parts = append(f.parts, sum[:]...)
	}
}

func (f *fingerprint) sum() [sha256.Size]byte { return sha256.Sum256(f.parts) }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
