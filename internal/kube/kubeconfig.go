package kube

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

var yamlLine = regexp.MustCompile(`line [0-9]+`)

// fromKubeconfig reads a kubeconfig, from its file or as the text of infra.yml.
// What is wrong with it is said before client-go does, which reports a missing
// file as a refused connection to localhost:8080.
func fromKubeconfig(infra berth.InfrastructureConfig) (*access, error) {
	cred := infra.Credentials
	what, data := "the kubeconfig in infra.yml", []byte(cred.Content.Reveal())
	if cred.Path != "" {
		what = "kubeconfig " + cred.Path
		var err error
		if data, err = os.ReadFile(cred.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s does not exist; get one from the cluster's engineer, make one with berth create-kubeconfig, or correct credentials.path", what)
		} else if err != nil {
			return nil, fmt.Errorf("%s can't be read: %w", what, err)
		}
	}
	a, err := parseKubeconfig(data, infra)
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	return a, nil
}

func parseKubeconfig(data []byte, infra berth.InfrastructureConfig) (*access, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("is empty; get it again from where it came from")
	}
	config, err := clientcmd.Load(data)
	if err != nil {
		// The decoder's text may quote the file, and the file holds secrets.
		where := ""
		if line := yamlLine.FindString(err.Error()); line != "" {
			where = " (" + line + ")"
		}
		return nil, fmt.Errorf("is not a kubeconfig: it is not YAML of that form%s", where)
	}
	name, err := chooseContext(config, infra.Credentials.Context)
	if err != nil {
		return nil, err
	}
	context := config.Contexts[name]
	cluster, user := config.Clusters[context.Cluster], config.AuthInfos[context.AuthInfo]
	if err := checkContext(name, context, cluster, user); err != nil {
		return nil, err
	}
	if infra.Credentials.Path != "" {
		origin := infra.Credentials.Path
		cluster.LocationOfOrigin, user.LocationOfOrigin, context.LocationOfOrigin = origin, origin, origin
		if err := clientcmd.ResolveLocalPaths(config); err != nil {
			return nil, fmt.Errorf("names files that can't be resolved: %w", err)
		}
	}
	seen := fingerprint{}
	seen.add(data)
	if err := checkFiles(cluster, user, &seen); err != nil {
		return nil, err
	}
	switch {
	case infra.InsecureSkipTLSVerify:
		cluster.InsecureSkipTLSVerify = true
		cluster.CertificateAuthority, cluster.CertificateAuthorityData = "", nil
	case cluster.InsecureSkipTLSVerify:
		return nil, fmt.Errorf("turns off the verification of TLS (insecure-skip-tls-verify: true): anybody between here and the cluster could take the credentials; put the cluster's CA into it, or write insecure_skip_tls_verify: true for this infrastructure in infra.yml")
	}
	client, err := clientcmd.NewNonInteractiveClientConfig(*config, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("can't be used: %w", err)
	}
	return &access{config: client, namespace: context.Namespace, fingerprint: seen.sum()}, nil
}

func chooseContext(config *api.Config, wanted string) (string, error) {
	names := slices.Sorted(maps.Keys(config.Contexts))
	if len(names) == 0 {
		return "", fmt.Errorf("has no contexts, so it is not complete; get it again, for example with berth create-kubeconfig")
	}
	list := strings.Join(names, ", ")
	if wanted != "" {
		if config.Contexts[wanted] == nil {
			return "", fmt.Errorf("has no context %q; it has: %s", wanted, list)
		}
		return wanted, nil
	}
	if config.CurrentContext == "" {
		return "", fmt.Errorf("has no current-context; name one as credentials.context in infra.yml: %s", list)
	}
	if config.Contexts[config.CurrentContext] == nil {
		return "", fmt.Errorf("has the current-context %q, but no context of that name; name one as credentials.context in infra.yml: %s", config.CurrentContext, list)
	}
	return config.CurrentContext, nil
}

func checkContext(name string, context *api.Context, cluster *api.Cluster, user *api.AuthInfo) error {
	switch {
	case cluster == nil:
		return fmt.Errorf("is not complete: context %q names the cluster %q, which isn't in it", name, context.Cluster)
	case user == nil:
		return fmt.Errorf("is not complete: context %q names the user %q, which isn't in it", name, context.AuthInfo)
	case cluster.Server == "":
		return fmt.Errorf("is not complete: cluster %q has no server", context.Cluster)
	case user.AuthProvider != nil:
		return fmt.Errorf("uses the auth-provider %q, which client-go no longer has; use its exec plugin (gke-gcloud-auth-plugin, kubelogin) or berth create-kubeconfig", user.AuthProvider.Name)
	}
	for _, pem := range []struct {
		field string
		data  []byte
	}{
		{"certificate-authority-data", cluster.CertificateAuthorityData},
		{"client-certificate-data", user.ClientCertificateData},
		{"client-key-data", user.ClientKeyData},
	} {
		if len(pem.data) > 0 && !bytes.Contains(pem.data, []byte("-----BEGIN ")) {
			hint := "it is not base64 of PEM"
			if _, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(pem.data))); err == nil {
				hint = "it is base64 twice"
			}
			return fmt.Errorf("has an unreadable %s: %s", pem.field, hint)
		}
	}
	return nil
}

// checkFiles reads the files that a kubeconfig names: a missing one is an error
// now, and a changed one is a change of the credentials.
func checkFiles(cluster *api.Cluster, user *api.AuthInfo, seen *fingerprint) error {
	for _, file := range []struct{ field, path string }{
		{"certificate-authority", cluster.CertificateAuthority},
		{"client-certificate", user.ClientCertificate},
		{"client-key", user.ClientKey},
		{"tokenFile", user.TokenFile},
	} {
		if file.path == "" {
			continue
		}
		data, err := readCredential(file.path, "file of "+file.field)
		if err != nil {
			return fmt.Errorf("names a %w; a kubeconfig made with `kubectl config view --flatten --minify` needs no such files", err)
		}
		seen.add(data)
	}
	return nil
}

// addressMismatch says how the address of infra.yml differs from the server
// that is really talked to, or "". The kubeconfig's server is what counts.
func addressMismatch(infra berth.InfrastructureConfig, server string) string {
	if infra.Address == "" || hostPort(infra.Address) == hostPort(server) {
		return ""
	}
	from := "the credentials'"
	if infra.Credentials.Path != "" {
		from = filepath.Base(infra.Credentials.Path) + "'s"
	}
	return fmt.Sprintf("infrastructure %s: address is %s, but %s server is %s, which is what counts", infra.Name, redactURL(infra.Address), from, redactURL(server))
}

func hostPort(address string) string {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.ToLower(net.JoinHostPort(u.Hostname(), port))
}

// redactURL returns an address without the password that it may hold.
func redactURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "[not a URL]"
	}
	return u.Redacted()
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
