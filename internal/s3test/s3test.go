// Package s3test runs a real S3 server for tests: versitygw, which "make
// bin/s3server" builds, over a directory. It ends with
// the test, or with the process.
package s3test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/internal/childtest"
)

// AccessKey and SecretKey are those of the server's one user; the second is
// hard to overlook in a log or an error, where it has no place.
const (
	AccessKey = "AKIABERTHTEST"
	SecretKey = "hunter2-never-shown"
	Region    = "eu-test-1"
	Bucket    = "berth-test"
)

// Server is an S3 server with one bucket.
type Server struct {
	CA string // file with the authority of its certificate; empty: it is without TLS

	dir    string
	host   string
	region string
	port   int
	cmd    *exec.Cmd
	done   <-chan struct{}
}

// New starts a server on the loopback, with TLS.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{dir: t.TempDir(), host: "127.0.0.1", region: Region}
	s.CA = filepath.Join(s.dir, "ca.pem")
	if err := s.certificate(); err != nil {
		t.Fatal(err)
	}
	return s.begin(t)
}

// NewPlain starts a server without TLS on an address of this machine, in the
// region that clients of MinIO take for granted.
func NewPlain(t testing.TB, host string) *Server {
	t.Helper()
	return (&Server{dir: t.TempDir(), host: host, region: "us-east-1"}).begin(t)
}

func (s *Server) begin(t testing.TB) *Server {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(s.dir, "data", Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(s.host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// Environment is what tells a program the server's user, and no other.
func Environment() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
}

// URL is the address of what is below a prefix in the bucket.
func (s *Server) URL(prefix string) string {
	return fmt.Sprintf("s3://%s?endpoint=%s&region=%s&ca=%s&prefix=%s", Bucket, s.Endpoint(), Region, s.CA, prefix)
}

// Endpoint is where the server is.
func (s *Server) Endpoint() string {
	if s.CA == "" {
		return "http://" + s.address()
	}
	return "https://" + s.address()
}

func (s *Server) address() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// Objects are the keys of what is stored below a prefix.
func (s *Server) Objects(t testing.TB, prefix string) []string {
	t.Helper()
	root := filepath.Join(s.dir, "data", Bucket)
	var keys []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasPrefix(path, prefix) {
			keys = append(keys, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Start starts the server where it was, and returns once it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	args := []string{"--port", s.address(), "--region", s.region, "--quiet"}
	if s.CA != "" {
		args = append(args, "--cert", filepath.Join(s.dir, "cert.pem"), "--key", filepath.Join(s.dir, "key.pem"))
	}
	cmd := exec.CommandContext(context.Background(), program(), append(args, "posix", filepath.Join(s.dir, "data"))...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+AccessKey, "ROOT_SECRET_ACCESS_KEY="+SecretKey)
	cmd.Dir = s.dir
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	done, err := childtest.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatalf("there is no S3 server here: %v: make bin/s3server", err)
	}
	s.cmd, s.done = cmd, done
	dial := (&net.Dialer{}).DialContext
	if s.CA != "" {
		dial = (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext //nolint:gosec // it only asks whether somebody is there
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := dial(t.Context(), "tcp", s.address())
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-done:
			t.Fatalf("the S3 server ended:\n%s", output.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// Stop ends the server. What is stored stays.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

// Age makes all that is stored older.
func (s *Server) Age(t testing.TB, by time.Duration) {
	t.Helper()
	root := filepath.Join(s.dir, "data", Bucket)
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		then := info.ModTime().Add(-by)
		return os.Chtimes(filepath.Join(root, path), then, then)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// program is what make builds at the root of the repository.
func program() string {
	_, file, _, _ := runtime.Caller(0)
	if !filepath.IsAbs(file) { // of a build with -trimpath
		dir, _ := os.Getwd()
		for ; dir != "/"; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				break
			}
		}
		return filepath.Join(dir, "bin", "s3server")
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "bin", "s3server")
}

func (s *Server) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "s3test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, data := range map[string][]byte{"ca.pem": certificate, "cert.pem": certificate, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
