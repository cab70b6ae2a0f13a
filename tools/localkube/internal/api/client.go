// Package api speaks with a cluster's API server, as little as bringing a cluster up needs: JSON over
// HTTPS with the administrator's certificate.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/berth-run/berth/tools/localkube/internal/certificate"
)

// Client is a connection to one API server.
type Client struct {
	server string
	http   *http.Client
}

// New returns a client for the holder of a certificate.
func New(server string, folder certificate.Folder, authority, holder string) (*Client, error) {
	pair, err := tls.LoadX509KeyPair(folder.Path(holder+".crt"), folder.Path(holder+".key"))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	pem, err := os.ReadFile(folder.Path(authority + ".crt"))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	return &Client{server, &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

// Error is an answer that is not a success.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("the API server answered %d: %s", e.Code, e.Text) }

// Get returns what is at a path.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, into)
}

// Create makes an object at a collection's path; one that exists already is no error.
func (c *Client) Create(ctx context.Context, path string, object any) error {
	err := c.do(ctx, http.MethodPost, path, "application/json", object, nil)
	var answer *Error
	if errors.As(err, &answer) && answer.Code == http.StatusConflict {
		return nil
	}
	return err
}

// Merge changes an object by a merge patch.
func (c *Client) Merge(ctx context.Context, path string, patch any) error {
	return c.do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch, nil)
}

func (c *Client) do(ctx context.Context, method, path, kind string, body, into any) error {
	var reader io.Reader
	if body != nil {
		content, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(content)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, reader)
	if err != nil {
		return err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return &Error{response.StatusCode, string(bytes.TrimSpace(content))}
	}
	if into != nil {
		return json.Unmarshal(content, into)
	}
	return nil
}

// Ready says whether the API server answers and all that it needs is there.
func (c *Client) Ready(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := c.http.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}
