package client

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/control"
	"github.com/berth-run/berth/internal/rpc"
)

// DialOption changes how Dial connects.
type DialOption func(*dialing) error

type dialing struct {
	roots   *x509.CertPool
	waiting func(reason string)
}

// WithCAFile trusts the certificates of a PEM file instead of the system's.
func WithCAFile(path string) DialOption {
	return func(d *dialing) error {
		pem, err := os.ReadFile(path)
		if err != nil {
			return berth.Errorf(berth.CodeInvalid, "cannot read the CA file: %w", err)
		}
		d.roots = x509.NewCertPool()
		if !d.roots.AppendCertsFromPEM(pem) {
			return berth.Errorf(berth.CodeInvalid, "the CA file %s holds no PEM certificate", path)
		}
		return nil
	}
}

// WhenWaiting is told why, whenever a server that is away is waited for for
// more than a moment.
func WhenWaiting(tell func(reason string)) DialOption {
	return func(d *dialing) error { d.waiting = tell; return nil }
}

const (
	pingInterval = 15 * time.Second // after which a connection that is silent is asked for a sign
	pingTimeout  = 10 * time.Second
)

// Dial returns the Service of a server: https://HOST:PORT with a bearer token,
// or unix://DATA-DIRECTORY, which only ever is a guest there. It connects at
// the first call. http:// is refused but for loopback: a token would be sent
// in clear.
//
// Calls and sequences outlive restarts of the server: one that is away for up
// to half a minute is waited for, and what was under way goes on.
func Dial(address, token string, options ...DialOption) (berth.Service, error) {
	var d dialing
	for _, option := range options {
		if err := option(&d); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" && u.Scheme != "unix" {
		return nil, berth.Errorf(berth.CodeInvalid, "server address %q: write https://HOST:PORT or unix://DATA-DIRECTORY", address)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, berth.Errorf(berth.CodeInvalid, "server address %q: write https://HOST:PORT alone; the token is given apart", u.Redacted())
	}
	switch u.Scheme {
	case "unix":
		return newRemote(address, rpc.NewClient(control.SocketClient(filepath.Join(u.Host, u.Path)), "http://berth", token), d), nil
	case "https":
	case "http":
		if host := u.Hostname(); host != "localhost" && host != "::1" && !strings.HasPrefix(host, "127.") {
			return nil, berth.Errorf(berth.CodeInvalid, "server address %q: use https://; over http:// the token could be read by others", address)
		}
	default:
		return nil, berth.Errorf(berth.CodeInvalid, "server address %q: unknown scheme %q; write https://HOST:PORT or unix://DATA-DIRECTORY", address, u.Scheme)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS12}
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingTimeout}
	client := &http.Client{
		Transport: rpc.CheckAnswers(transport),
		// A redirect would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return newRemote(address, rpc.NewClient(client, strings.TrimSuffix(address, "/"), token), d), nil
}
