package diagnosis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"
)

// quiet is for servers whose clients are meant to give up.
var quiet = log.New(io.Discard, "", 0)

// transportError makes the errors of a connection as Go's own transport makes
// them, against local sockets wherever that can be had.
func transportError(t testing.TB, kind string) error {
	t.Helper()
	failing := func(err error) error {
		return get(t, "https://cluster.example:6443", &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }})
	}
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 6443}, Err: err}
	}
	switch kind {
	case "refused":
		return get(t, "https://"+closedPort(t), &http.Transport{})
	case "dns":
		return failing(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "cluster.example", Server: "10.0.0.1:53", IsNotFound: true}})
	case "no-route":
		return failing(dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)))
	case "silent-dial":
		return failing(dial(os.ErrDeadlineExceeded))
	case "socks":
		return get(t, "https://cluster.example:6443", &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: closedPort(t)})})
	case "proxy":
		return get(t, "https://cluster.example:6443", &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: closedPort(t)})})
	case "barred":
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this way is barred", http.StatusForbidden)
		}))
		defer server.Close()
		return get(t, "https://cluster.example:6443", &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return url.Parse(server.URL) }})
	case "unknown-authority":
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = quiet
		server.StartTLS()
		defer server.Close()
		return get(t, server.URL, &http.Transport{})
	case "expired":
		return getCertificate(t, "127.0.0.1", -time.Hour)
	case "hostname":
		return getCertificate(t, "127.0.0.2", time.Hour)
	case "plain-http":
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		return get(t, "https://"+server.Listener.Addr().String(), &http.Transport{})
	case "cut":
		return get(t, "http://"+answering(t, func(c net.Conn) {}), &http.Transport{})
	case "reset":
		return get(t, "http://"+answering(t, func(c net.Conn) {
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
		}), &http.Transport{})
	case "slow":
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
		defer server.Close()
		defer close(release)
		return get(t, server.URL, &http.Transport{ResponseHeaderTimeout: time.Millisecond})
	case "plugin": // client-go's exec plugin wraps it so
		return &url.Error{Op: "Get", URL: "https://cluster.example:6443/api", Err: errors.New("getting credentials: exec: executable gke-gcloud-auth-plugin not found")}
	}
	t.Fatalf("unknown transport error %q", kind)
	return nil
}

func get(t testing.TB, address string, transport *http.Transport) error {
	t.Helper()
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/api/v1/namespaces/berth/pods", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err == nil {
		_ = response.Body.Close()
		t.Fatalf("%s answered %s", address, response.Status)
	}
	return err
}

// closedPort returns an address that nothing listens at.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// answering returns an address whose server reads a request and closes.
func answering(t testing.TB, before func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		buffer := make([]byte, 4096)
		_, _ = c.Read(buffer)
		before(c)
		_ = c.Close()
	}()
	return l.Addr().String()
}

// getCertificate asks a server whose trusted certificate is for an address and
// ends after a while.
func getCertificate(t testing.TB, address string, validFor time.Duration) error {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(validFor),
		IPAddresses: []net.IP{net.ParseIP(address)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = quiet
	server.StartTLS()
	defer server.Close()
	return get(t, fmt.Sprintf("https://%s", server.Listener.Addr()), &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}})
}
