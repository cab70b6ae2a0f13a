//go:build e2e

package docker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// authority signs certificates of a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign writes NAME.pem and NAME-key.pem.
func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+"-key.pem", "EC PRIVATE KEY", secret)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func TestOverTCPOnlyWhoIsVerifiedGetsIn(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	a.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	other := t.TempDir()
	newAuthority(t, other)
	address := closedPort(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	engine := ownEngine(t, "-H", "tcp://"+address, "--tlsverify", "--tlscacert", file("ca.pem"), "--tlscert", file("server.pem"), "--tlskey", file("server-key.pem"))

	entry := func(tls string) *site {
		s := newSite(t, engine)
		s.write("infra.yml", "infrastructures:\n  here:\n    kind: docker\n    address: tcp://"+address+"\n    "+tls+"\n")
		return s
	}
	good := entry("tls: {ca_file: " + file("ca.pem") + ", cert_file: " + file("client.pem") + ", key_file: " + file("client-key.pem") + "}")
	if got := good.must("run", busybox, "echo", "verified"); got != "verified\n" {
		t.Errorf("output %q", got)
	}
	tests := map[string]struct{ tls, says string }{
		"a server of another authority": {"tls: {ca_file: " + filepath.Join(other, "ca.pem") + ", cert_file: " + file("client.pem") + ", key_file: " + file("client-key.pem") + "}", "certificate"},
		"without a certificate":         {"tls: {ca_file: " + file("ca.pem") + "}", "certificate"},
		"without TLS":                   {"limits: {max_pods: 5}", "without TLS"},
		"plain, though it wants TLS":    {"insecure_skip_tls_verify: true", "TLS"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := entry(test.tls)
			s.t = t
			if r := s.berth("run", busybox, "true"); r.code != berth.ExitNone && r.code != 1 && r.code != 2 || !strings.Contains(r.stderr, test.says) {
				t.Errorf("exit %d\n%s", r.code, r.stderr)
			}
		})
	}
	unverified := entry("insecure_skip_tls_verify: true\n    tls: {cert_file: " + file("client.pem") + ", key_file: " + file("client-key.pem") + "}")
	if got := unverified.must("run", busybox, "echo", "asked for"); got != "asked for\n" {
		t.Errorf("output %q", got)
	}
}
