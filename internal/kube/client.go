// Package kube adapts one namespace of a Kubernetes cluster: it logs in with
// the credentials of an entry of infra.yml, checks what is granted there, and
// runs attempts as bare pods. Configuration and orders come in; observations,
// logs and refusals, told apart, go out. It decides nothing about a task's life
// and stores nothing; package engine does.
package kube

import (
	"fmt"
	"log/slog"
	"net/http"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/berth-run/berth"
)

// Client talks to one namespace of one cluster. It reads its credentials again
// when the cluster no longer takes them, so it outlives tokens. It is safe for
// concurrent use.
type Client struct {
	Clientset kubernetes.Interface
	Name      string // of the infrastructure
	Namespace string
	Server    string
	Warnings  []string // for a person; nothing that keeps it from working

	transport *reloadingTransport
	options   Options
}

// Options are what a client may have beside its entry of infra.yml.
type Options struct {
	Tokens Tokens       // where renewed tokens are kept; nil: none is renewed
	Log    *slog.Logger // nil: the default one
}

// NewClient returns a client for an entry of infra.yml. It contacts nothing
// yet. The errors are those of [RESTConfig].
func NewClient(infra berth.InfrastructureConfig, options Options) (*Client, error) {
	if options.Log == nil {
		options.Log = slog.Default()
	}
	read := func() (*access, error) {
		a, err := readAccess(infra)
		if err != nil {
			return nil, err
		}
		return a.renewed(options.Tokens, infra.Name), nil
	}
	first, err := read()
	if err != nil {
		return nil, err
	}
	transport, err := newReloadingTransport(first, read)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "infrastructure %s: the credentials can't be used: %w", infra.Name, err)
	}
	// All that authenticates is in the transport, where it can be swapped.
	config := &rest.Config{
		Host:          first.config.Host,
		APIPath:       first.config.APIPath,
		ContentConfig: first.config.ContentConfig,
		QPS:           first.config.QPS,
		UserAgent:     first.config.UserAgent,
	}
	clientset, err := kubernetes.NewForConfigAndClient(config, &http.Client{Transport: transport})
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "infrastructure %s: %w", infra.Name, err)
	}
	c := &Client{
		Clientset: clientset,
		Name:      infra.Name,
		Namespace: first.namespace,
		Server:    first.config.Host,
		transport: transport,
		options:   options,
	}
	if mismatch := addressMismatch(infra, c.Server); mismatch != "" {
		c.Warnings = append(c.Warnings, mismatch)
	}
	if infra.InsecureSkipTLSVerify {
		c.Warnings = append(c.Warnings, fmt.Sprintf("infrastructure %s: TLS is not verified (insecure_skip_tls_verify: true)", infra.Name))
	}
	return c, nil
}

// Close closes connections that nothing uses. Calls under way go on.
func (c *Client) Close() {
	if c.transport != nil {
		utilnet.CloseIdleConnectionsFor(c.transport.current.Load().transport)
	}
}
