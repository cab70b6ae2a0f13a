//go:build e2e

package docker

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth/internal/drivertest"
	"github.com/berth-run/berth/internal/engine"
)

func TestTheDriverKeepsItsPromises(t *testing.T) {
	link := drivertest.NewLink(t, "unix", filepath.Join(shared.dir, "link.sock"), shared.socket())
	drivertest.Run(t, drivertest.Harness{
		New: func(t *testing.T, instance string) engine.Driver {
			return shared.driver(t, "unix://"+link.Address, instance)
		},
		Link:       link,
		Image:      busybox,
		NotFound:   registry(t, http.StatusNotFound, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`) + "/tool:1",
		Private:    registry(t, http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`) + "/tool:1",
		NoRegistry: closedPort(t) + "/tool:1",
		Foreign: func(t *testing.T, name string) {
			t.Helper()
			made, err := shared.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: busybox}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, _ = shared.api.ContainerRemove(context.Background(), made.ID, client.ContainerRemoveOptions{Force: true})
			})
		},
		Labels: func(t *testing.T, pod string) map[string]string {
			t.Helper()
			c, err := shared.api.ContainerInspect(t.Context(), pod, client.ContainerInspectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return c.Container.Config.Labels
		},
		Destroy: func(t *testing.T, pod string) {
			t.Helper()
			if _, err := shared.api.ContainerRemove(t.Context(), pod, client.ContainerRemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// registry is a registry that gives one answer to all but the first question,
// and returns its HOST:PORT. An Engine takes one at this address without TLS.
func registry(t *testing.T, status int, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if status == http.StatusNotFound && strings.TrimSuffix(r.URL.Path, "/") == "/v2" {
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// closedPort is an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// silentRegistry is a registry that takes questions and answers none.
func silentRegistry(t *testing.T) string {
	t.Helper()
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(func() { close(over); server.Close() })
	return server.Listener.Addr().String()
}
