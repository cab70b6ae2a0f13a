// Package certificate makes the keys and certificates of a cluster, and kubeconfigs with them. It
// writes files into one folder and reads none back: each cluster gets new ones.
package certificate

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
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Folder is where a cluster's certificates lie.
type Folder string

// Path is the path of a file in it, such as "ca.crt".
func (f Folder) Path(name string) string { return filepath.Join(string(f), name) }

// Authority signs certificates.
type Authority struct {
	folder      Folder
	name        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Subject is whom a certificate is for.
type Subject struct {
	CommonName   string
	Organization []string
	Addresses    []netip.Addr
	Names        []string
}

// Key makes a private key and keeps it in NAME.key.
func (f Folder) Key(name string) (*ecdsa.PrivateKey, error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for certificates: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key %s: %w", name, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the key %s: %w", name, err)
	}
	return key, f.write(name+".key", "EC PRIVATE KEY", der)
}

func (f Folder) write(name, kind string, der []byte) error {
	if err := os.WriteFile(f.Path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("keep a certificate: %w", err)
	}
	return nil
}

// NewAuthority makes an authority and keeps it in NAME.crt and NAME.key.
func (f Folder) NewAuthority(name string) (*Authority, error) {
	key, err := f.Key(name)
	if err != nil {
		return nil, err
	}
	template := template(Subject{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	template.ExtKeyUsage = nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the authority %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the authority %s: %w", name, err)
	}
	return &Authority{f, name, certificate, key}, f.write(name+".crt", "CERTIFICATE", der)
}

// Issue makes a certificate and keeps it in NAME.crt and NAME.key.
func (a *Authority) Issue(name string, subject Subject) error {
	key, err := a.folder.Key(name)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template(subject), a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("make the certificate %s: %w", name, err)
	}
	return a.folder.write(name+".crt", "CERTIFICATE", der)
}

func template(subject Subject) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the kernel has no random numbers
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: subject.CommonName, Organization: subject.Organization},
		// An hour back: clocks may be set while a machine starts.
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    subject.Names,
	}
	for _, address := range subject.Addresses {
		t.IPAddresses = append(t.IPAddresses, net.IP(address.AsSlice()))
	}
	return t
}

// Kubeconfig writes a kubeconfig with everything in it for the holder of a certificate.
func (a *Authority) Kubeconfig(file, server, cluster, holder string) error {
	data := map[string]string{}
	for key, name := range map[string]string{"ca": a.name + ".crt", "certificate": holder + ".crt", "key": holder + ".key"} {
		content, err := os.ReadFile(a.folder.Path(name))
		if err != nil {
			return fmt.Errorf("write a kubeconfig: %w", err)
		}
		data[key] = base64.StdEncoding.EncodeToString(content)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[4]s}
current-context: %[1]s
`, cluster, server, data["ca"], holder, data["certificate"], data["key"])
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write a kubeconfig: %w", err)
	}
	return nil
}
