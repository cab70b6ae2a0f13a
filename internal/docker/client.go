// Package docker adapts a Docker Engine: it runs each attempt as one container
// of the Engine. Configuration and orders come in; observations, logs and
// refusals, told apart, go out. It decides nothing about a task's life and
// stores nothing; package engine does.
//
// What a cluster does by itself is done here while somebody watches: images are
// pulled before a container is made, a container that was made is started, and
// one whose time is over is stopped.
package docker

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strings"

	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

// DefaultAddress is where an Engine listens unless it is told otherwise.
const DefaultAddress = "unix:///var/run/docker.sock"

// Client talks to one Docker Engine. It is safe for concurrent use.
type Client struct {
	Name   string // of the infrastructure
	Server string // unix:// or tcp://

	api *client.Client
}

// NewClient returns a client for an entry of infra.yml. It contacts nothing
// yet. CodeInvalid when certificates can't be used.
func NewClient(infra berth.InfrastructureConfig) (*Client, error) {
	c := &Client{Name: infra.Name, Server: infra.Address}
	if c.Server == "" {
		c.Server = DefaultAddress
	}
	transport := &http.Transport{MaxIdleConns: 64, MaxIdleConnsPerHost: 64}
	scheme := "http"
	if strings.HasPrefix(c.Server, "tcp://") && infra.TLS != nil {
		config, err := tlsConfig(infra)
		if err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "infrastructure %s: %w", infra.Name, err)
		}
		transport.TLSClientConfig, scheme = config, "https"
	}
	api, err := client.New(
		client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
		client.WithHost(c.Server), client.WithScheme(scheme), client.WithUserAgent("berth"),
	)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "infrastructure %s: address %s can't be used: %w", infra.Name, c.Server, err)
	}
	c.api = api
	return c, nil
}

// Close closes connections that nothing uses. Calls under way go on.
func (c *Client) Close() { _ = c.api.Close() }

func tlsConfig(infra berth.InfrastructureConfig) (*tls.Config, error) {
	t := infra.TLS
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: infra.InsecureSkipTLSVerify}
	ca, err := pem(t.CA, t.CAFile)
	if err != nil {
		return nil, err
	}
	if len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, berth.Errorf(berth.CodeInvalid, "tls: ca holds no certificate in PEM")
		}
	}
	cert, err := pem(t.Cert, t.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := pem(t.Key.Reveal(), t.KeyFile)
	if err != nil {
		return nil, err
	}
	if len(cert) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "tls: cert and key don't make a pair: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// pem returns what is written in infra.yml, or in a file that it names.
func pem(text, file string) ([]byte, error) {
	if file == "" {
		return []byte(text), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "tls: %w", err)
	}
	return data, nil
}
