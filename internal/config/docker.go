package config

import (
	"slices"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// kubeOnly are fields that say something about a namespace of a cluster, and
// podKubeOnly those below pod.
var (
	kubeOnly    = []string{"namespace", "credentials", "agent_image", "proxy_address", "proxy_bypass"}
	podKubeOnly = []string{"node_selector", "tolerations", "service_account", "priority_class", "image_pull_secrets", "runtime_class", "security"}
)

// docker reads what an entry of kind docker has beside what all kinds have.
func (r *reader) docker(fields *yamlstrict.Fields, infra *berth.InfrastructureConfig) {
	for _, name := range kubeOnly {
		if fields.Has(name) {
			fields.Get(name).FailKeyf("belongs to kind kube, not to kind docker")
			return
		}
	}
	for _, entry := range fields.Get("pod").Entries() {
		if slices.Contains(podKubeOnly, entry.Key) {
			entry.FailKeyf("belongs to kind kube; pod of kind docker has labels alone")
			return
		}
	}
	infra.Pod = berth.PodConfig{Labels: labelMap(fields.Get("pod").Fields("labels").Get("labels"), true)}
	infra.Address = engineAddress(fields.Get("address"))
	infra.TLS = r.tls(fields.Get("tls"))
	n := fields.Get("address")
	overTCP := strings.HasPrefix(infra.Address, "tcp://")
	switch {
	case overTCP && infra.TLS == nil && !infra.InsecureSkipTLSVerify:
		n.Failf("tcp:// without TLS lets anybody on the way become root on that machine: write tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}")
	case !overTCP && infra.TLS != nil:
		fields.Get("tls").FailKeyf("belongs to an address with tcp://; a socket has no TLS")
	}
}

// engineAddress is where a Docker Engine listens; by default its usual socket.
func engineAddress(n *yamlstrict.Node) string {
	text := nonEmpty(n)
	path, socket := strings.CutPrefix(text, "unix://")
	hostPort, tcp := strings.CutPrefix(text, "tcp://")
	switch {
	case text == "":
		return "unix:///var/run/docker.sock"
	case socket && strings.HasPrefix(path, "/"):
		return text
	case tcp && hostPort != "" && !strings.ContainsAny(hostPort, "/ \t\n"):
		rejectPassword(n, text)
		if !strings.Contains(hostPort[strings.LastIndex(hostPort, "]")+1:], ":") {
			n.Rejectf("the port is missing: a Docker Engine with TLS listens at 2376")
		}
		return text
	case strings.HasPrefix(text, "ssh://"):
		n.Failf("ssh:// is not supported; forward the socket yourself (ssh -L /run/engine.sock:/var/run/docker.sock HOST) and write unix:///run/engine.sock")
	default:
		rejectPassword(n, text)
		n.Rejectf("want unix:///PATH or tcp://HOST:PORT")
	}
	return ""
}

// tls reads how a Docker Engine over tcp:// is verified, and how we are.
func (r *reader) tls(n *yamlstrict.Node) *berth.TLS {
	if n == nil {
		return nil
	}
	if !n.Present() {
		n.FailKeyf("is empty: write tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}")
		return nil
	}
	fields := n.Fields("ca", "ca_file", "cert", "cert_file", "key", "key_file")
	for _, name := range []string{"ca", "cert", "key"} {
		if fields.Has(name) && fields.Has(name+"_file") {
			fields.Get(name+"_file").FailKeyf("%s is there as well; keep one", name)
			return nil
		}
	}
	t := &berth.TLS{
		CAFile: r.path(fields.Get("ca_file")), CertFile: r.path(fields.Get("cert_file")), KeyFile: r.path(fields.Get("key_file")),
		CA: r.certificate(fields.Get("ca")), Cert: r.certificate(fields.Get("cert")), Key: berth.Secret(nonEmpty(fields.Get("key"))),
	}
	if withCert, withKey := t.Cert != "" || t.CertFile != "", t.Key != "" || t.KeyFile != ""; withCert != withKey {
		n.FailKeyf("a certificate needs its key, and a key its certificate: want cert or cert_file, and key or key_file")
	}
	return t
}

func (r *reader) certificate(n *yamlstrict.Node) string {
	text := nonEmpty(n)
	if text == "" {
		return ""
	}
	if text = certificates(text); text == "" {
		n.Failf("holds no certificate; want PEM (-----BEGIN CERTIFICATE-----), or base64 of it")
	}
	return text
}
