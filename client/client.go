// Package client opens a berth.Service for programs: on the embedded store
// with Open, or on a server with Dial.
//
//	service, err := client.Open(ctx, client.Config{Infra: "infra.yml"})
//	task, err := service.SubmitTask(ctx, berth.Submission{Spec: berth.TaskSpec{Image: "docker.io/library/busybox:1.35", Args: []string{"echo", "hi"}}})
//	for task, err := range service.WatchTask(ctx, task.ID) { ... }
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/control"
	"github.com/berth-run/berth/internal/rpc"
	"github.com/berth-run/berth/internal/version"
)

// Config says where the embedded store is. The zero value means what the
// command line means without flags.
type Config struct {
	Infra string       // path of infra.yml; empty: BERTH_INFRA, ./infra.yml, then the user's own
	Data  string       // data directory; empty: BERTH_DATA, then the one beside infra.yml
	Log   *slog.Logger // for the operator; nil: nowhere
}

// Open joins the embedded store: this process becomes its host, or the guest
// of the process that is. Close it to leave; tasks go on in their clusters,
// and are reconciled by whoever opens the store next.
func Open(ctx context.Context, c Config) (berth.Service, error) {
	infra, err := config.Locate(c.Infra)
	if err != nil {
		return nil, err
	}
	data, err := filepath.Abs(config.DataDir(c.Data, infra))
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "data directory: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return control.Open(ctx, control.Config{InfraPath: infra, DataDir: data, Version: version.String(), Log: c.Log})
}

// DialOption changes how Dial connects.
type DialOption func(*dialing) error

type dialing struct{ roots *x509.CertPool }

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

// Dial returns the Service of a server: https://HOST:PORT with a bearer token,
// or unix://DATA-DIRECTORY, which only ever is a guest there. It connects at
// the first call. http:// is refused but for loopback: a token would be sent
// in clear.
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
	switch u.Scheme {
	case "unix":
		return rpc.NewClient(control.SocketClient(filepath.Join(u.Host, u.Path)), "http://berth", token), nil
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
	return rpc.NewClient(&http.Client{Transport: transport}, strings.TrimSuffix(address, "/"), token), nil
}
