package server

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
)

const (
	caLifetime     = 10 * 365 * 24 * time.Hour
	serverLifetime = 90 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
)

// Authority is a CA of a data directory, made when it is first needed: ca.pem
// for clients, and ca-key.pem, which never leaves.
type Authority struct {
	Path string // of ca.pem
	PEM  []byte

	certificate *x509.Certificate
	key         crypto.Signer
}

// OpenAuthority reads the CA of a directory, or makes it.
func OpenAuthority(dir string) (*Authority, error) {
	a := &Authority{Path: filepath.Join(dir, "ca.pem")}
	keyPath := filepath.Join(dir, "ca-key.pem")
	if missing(a.Path) || missing(keyPath) {
		if err := makeAuthority(a.Path, keyPath, time.Now()); err != nil {
			return nil, berth.Errorf(berth.CodeInternal, "cannot make a CA in %s: %w", dir, err)
		}
	}
	pair, err := tls.LoadX509KeyPair(a.Path, keyPath)
	if err == nil {
		a.PEM, err = os.ReadFile(a.Path)
	}
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "the CA in %s can't be used: %w; delete ca.pem and ca-key.pem for a new one, which clients have to be given", dir, err)
	}
	a.certificate, a.key = pair.Leaf, pair.PrivateKey.(crypto.Signer) // LoadX509KeyPair gives no other
	return a, nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// makeAuthority makes what is missing of a CA. The certificate comes last: who
// finds it may give it out, so it is that of the key for good. One that is made
// anew for the same key verifies what the one before did, and the other way round.
func makeAuthority(path, keyPath string, now time.Time) error {
	key, err := authorityKey(path, keyPath)
	if err != nil {
		return err
	}
	crash.Point("server.authority-key-written")
	host, _ := os.Hostname() // for people who look at it
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Berth CA " + host}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return writePEM(path, "CERTIFICATE", der)
}

// authorityKey reads the key of a CA, or makes it: then a certificate that is
// there is of a key that is gone.
func authorityKey(path, keyPath string) (crypto.Signer, error) {
	if text, err := os.ReadFile(keyPath); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, err
		}
		return parseKey(text)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(keyPath, key)
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("ca-key.pem holds no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("ca-key.pem: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("ca-key.pem holds no key that signs")
	}
	return signer, nil
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // never fails
	return n.Add(n, big.NewInt(1))
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

// writePEM replaces a file that its owner alone may read.
func writePEM(path, kind string, der []byte) error {
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// issue returns a certificate for names, kept in a directory: the one that is
// there while it is good for a while and for just these names, or a new one.
func (a *Authority) issue(dir string, names []string, now time.Time) (*tls.Certificate, error) {
	path, keyPath := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")
	if pair, err := tls.LoadX509KeyPair(path, keyPath); err == nil && a.stillGood(pair.Leaf, names, now) {
		return &pair, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: names[0]}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(serverLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(a.certificate.NotAfter) {
		template.NotAfter = a.certificate.NotAfter
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	if err := writeKey(keyPath, key); err != nil {
		return nil, err
	}
	crash.Point("server.key-written")
	if err := writePEM(path, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(path, keyPath)
	return &pair, err
}

func (a *Authority) stillGood(leaf *x509.Certificate, names []string, now time.Time) bool {
	if now.Add(renewBefore).After(leaf.NotAfter) || now.Before(leaf.NotBefore) || leaf.CheckSignatureFrom(a.certificate) != nil {
		return false
	}
	has := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		has = append(has, ip.String())
	}
	wanted := slices.Clone(names)
	slices.Sort(has)
	slices.Sort(wanted)
	return slices.Equal(has, wanted)
}

// Names are what a server that listens on an address is reached as: what it is
// advertised as, the address itself, and where it listens on all of them the
// machine's own name and addresses; and always the loopback's.
func Names(listen net.Addr, advertise []string) []string {
	var names []string
	add := func(name string) {
		if ip := net.ParseIP(name); ip != nil {
			name = ip.String()
		}
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range advertise {
		add(name)
	}
	if tcp, ok := listen.(*net.TCPAddr); ok {
		if !tcp.IP.IsUnspecified() {
			add(tcp.IP.String())
		} else {
			if host, err := os.Hostname(); err == nil {
				add(host)
			}
			addresses, _ := net.InterfaceAddrs() // without them the advertised names are left
			for _, address := range addresses {
				if network, ok := address.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() {
					add(network.IP.String())
				}
			}
		}
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		add(name)
	}
	return names
}

// expiry says when a CA has to be replaced by people, once that is near.
func (a *Authority) expiry(now time.Time) string {
	if now.Add(365 * 24 * time.Hour).Before(a.certificate.NotAfter) {
		return ""
	}
	return fmt.Sprintf("the CA %s ends on %s: delete it and ca-key.pem for a new one, and give that to clients", a.Path, a.certificate.NotAfter.Format(time.DateOnly))
}
