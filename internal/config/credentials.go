package config

import (
	"crypto/x509"
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// credentialFields says which mechanism each field belongs to.
var credentialFields = map[string]string{
	"path": "config", "content": "config", "file": "config", "context": "config",
	"host": "service-account", "token": "service-account", "token_file": "service-account", "ca": "service-account", "ca_file": "service-account",
}

func (r *reader) credentials(n *yamlstrict.Node, infra berth.InfrastructureConfig) berth.Credentials {
	var c berth.Credentials
	if n == nil {
		return c
	}
	if !n.Present() {
		n.FailKeyf("is empty: say how to log in, such as credentials: {mechanism: config, path: ./kubeconfig}")
		return c
	}
	fields := n.Fields("mechanism", "path", "content", "file", "context", "host", "token", "token_file", "ca", "ca_file")
	mechanism := fields.Require("mechanism", "write mechanism: config, service-account or in-cluster")
	if mechanism == nil {
		return c
	}
	c.Mechanism = mechanism.OneOf("config", "service-account", "in-cluster")
	for _, entry := range n.Entries() {
		if of, ok := credentialFields[entry.Key]; ok && of != c.Mechanism {
			entry.FailKeyf("belongs to mechanism %s, not to %s", of, c.Mechanism)
			return c
		}
	}
	switch c.Mechanism {
	case "config":
		r.kubeconfig(n, fields, &c)
	case "service-account":
		r.serviceAccount(n, fields, &c, infra)
	}
	return c
}

func (r *reader) kubeconfig(n *yamlstrict.Node, fields *yamlstrict.Fields, c *berth.Credentials) {
	if !exactlyOne(n, fields, "path", "content", "file") {
		return
	}
	c.Context = nonEmpty(fields.Get("context"))
	c.Path = r.path(fields.Get("path"))
	if content := fields.Get("content"); content != nil {
		if content.IsMap() {
			content.FailKeyf("want the kubeconfig as text: write `content: |` and indent it below")
			return
		}
		c.Content = berth.Secret(nonEmpty(content))
	}
	if encoded := fields.Get("file"); encoded != nil {
		text, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(nonEmpty(encoded)), ""))
		if err != nil {
			encoded.Failf("is not base64; it holds a whole kubeconfig in base64 (for the name of a file there is path)")
			return
		}
		c.Content = berth.Secret(text)
	}
}

func (r *reader) serviceAccount(n *yamlstrict.Node, fields *yamlstrict.Fields, c *berth.Credentials, infra berth.InfrastructureConfig) {
	host := fields.Require("host", "write the API server's address, such as https://mycluster.com:6443")
	if infra.Namespace == "" {
		n.FailKeyf("mechanism service-account needs the infrastructure's namespace: a token alone doesn't tell it")
	}
	c.Host = apiServer(host, infra.InsecureSkipTLSVerify)
	if !exactlyOne(n, fields, "token", "token_file") {
		return
	}
	c.Token = berth.Secret(strings.TrimSpace(nonEmpty(fields.Get("token"))))
	c.TokenFile = r.path(fields.Get("token_file"))
	if !fields.Has("ca") && !fields.Has("ca_file") {
		if !infra.InsecureSkipTLSVerify {
			n.FailKeyf(`ca or ca_file is missing, without which the API server can't be verified; get it with: kubectl get configmap kube-root-ca.crt -n %s -o jsonpath='{.data.ca\.crt}' > ca.crt`, infra.Namespace)
		}
		return
	}
	if !exactlyOne(n, fields, "ca", "ca_file") {
		return
	}
	c.CAFile = r.path(fields.Get("ca_file"))
	if ca := fields.Get("ca"); ca != nil {
		c.CA = certificates(nonEmpty(ca))
		if c.CA == "" {
			ca.Failf("holds no certificate; want PEM (-----BEGIN CERTIFICATE-----), or base64 of it")
		}
	}
}

// apiServer is the address of an API server as a URL.
func apiServer(n *yamlstrict.Node, insecure bool) string {
	host := address(n)
	switch {
	case host == "":
	case !strings.Contains(host, "://"):
		return "https://" + host
	case strings.HasPrefix(host, "https://"):
	case strings.HasPrefix(host, "http://") && (insecure || isLoopback(host)):
	default:
		n.Rejectf("want https://HOST:PORT: the token would go unencrypted")
	}
	return host
}

func isLoopback(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
}

// certificates returns PEM, given as such or in base64 as kubeconfigs have it,
// or "" when there is no certificate in it.
func certificates(text string) string {
	if decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err == nil {
		text = string(decoded)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(text)) {
		return ""
	}
	return text
}

// exactlyOne makes sure that one of a few fields is there.
func exactlyOne(n *yamlstrict.Node, fields *yamlstrict.Fields, names ...string) bool {
	first := ""
	for _, name := range names {
		switch {
		case !fields.Has(name):
		case first == "":
			first = name
		default:
			fields.Get(name).FailKeyf("%s is there as well; keep one", first)
			return false
		}
	}
	if first == "" {
		n.FailKeyf("want one of %s", strings.Join(names, ", "))
		return false
	}
	return true
}
