package server

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func authority(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issued(t *testing.T, a *Authority, dir string, names []string, now time.Time) *tls.Certificate {
	t.Helper()
	c, err := a.issue(dir, names, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAServerCertificateIsForItsNamesAndFromItsCA(t *testing.T) {
	dir := t.TempDir()
	a := authority(t, dir)
	leaf := issued(t, a, dir, []string{"berth.example", "10.1.2.3", "::1"}, time.Now()).Leaf
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM)
	for _, name := range []string{"berth.example", "10.1.2.3", "::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.example"}); err == nil {
		t.Error("it is for another name too")
	}
	for _, name := range []string{"ca.pem", "ca-key.pem", "server.pem", "server-key.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

func TestACertificateIsRenewedNearItsEndAndForOtherNames(t *testing.T) {
	dir := t.TempDir()
	a := authority(t, dir)
	now := time.Now()
	first := issued(t, a, dir, []string{"a", "b"}, now).Leaf.SerialNumber
	if again := issued(t, authority(t, dir), dir, []string{"b", "a"}, now.Add(time.Hour)).Leaf.SerialNumber; again.Cmp(first) != 0 {
		t.Error("it was made anew without a reason")
	}
	second := issued(t, a, dir, []string{"a", "c"}, now).Leaf.SerialNumber
	if second.Cmp(first) == 0 {
		t.Error("it is not for the new name")
	}
	if third := issued(t, a, dir, []string{"a", "c"}, now.Add(serverLifetime-renewBefore+time.Hour)).Leaf.SerialNumber; third.Cmp(second) == 0 {
		t.Error("it was not renewed before its end")
	}
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	other := authority(t, dir)
	if issued(t, other, dir, []string{"a", "c"}, now).Leaf.CheckSignatureFrom(other.certificate) != nil {
		t.Error("a new CA goes on with a certificate of the one before")
	}
}

func TestACertificateOfFilesIsReadAgainWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	a := authority(t, dir)
	issued(t, a, dir, []string{"a"}, time.Now())
	path, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")
	config, err := FilesTLS(path, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FilesTLS(path, path, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a certificate was taken for a key")
	}
	if config.MinVersion != tls.VersionTLS12 {
		t.Errorf("minimal version %x", config.MinVersion)
	}
}

func TestWhatAServerIsReachedAs(t *testing.T) {
	names := Names(&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 7070}, []string{"berth.example", "localhost"})
	want := []string{"berth.example", "localhost", "10.1.2.3", "127.0.0.1", "::1"}
	if len(names) != len(want) {
		t.Fatalf("%v, want %v", names, want)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Errorf("%v, want %v", names, want)
		}
	}
	host, _ := os.Hostname()
	if everywhere := Names(&net.TCPAddr{IP: net.IPv6unspecified, Port: 7070}, nil); everywhere[0] != host {
		t.Errorf("%v has no %s", everywhere, host)
	}
}

// Who finds ca.pem may give it out: what a server was killed in the middle of
// making is made to its end by the next, and no certificate that was there is
// of another key than the one that stays.
func TestACertificateAuthorityThatWasMadeInPartVerifiesTheSame(t *testing.T) {
	dir := t.TempDir()
	given := authority(t, dir)
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	again := authority(t, dir)
	leaf := issued(t, again, dir, []string{"berth.example"}, time.Now()).Leaf
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(given.PEM)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "berth.example"}); err != nil {
		t.Errorf("by the certificate that was given out: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil { // then it is a new one
		t.Fatal(err)
	}
	if anew := authority(t, dir); string(anew.PEM) == string(again.PEM) {
		t.Error("a certificate whose key is gone is given out still")
	}
	if err := os.WriteFile(filepath.Join(dir, "ca-key.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), "ca-key.pem") {
		t.Errorf("a key that is none: %v", err)
	}
}
