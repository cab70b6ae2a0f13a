package kube

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/internal/engine"
)

// A namespace that may not be looked at may do all the same, unless nothing is
// granted in it: then its name is wrong, or the kubeconfig another's.
func TestIdentityOfANamespaceThatMayNotBeLookedAt(t *testing.T) {
	s := newAPIServer(t, "first")
	s.nsStatus = http.StatusForbidden
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: first}"), 0o600)
	c, err := NewClient(configInfra(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := NewDriver(c, configInfra(path), "i")
	if identity, err := d.Identity(t.Context()); identity != "" || err != nil {
		t.Errorf("where pods may be listed: %q, %v", identity, err)
	}
	s.denied = map[string]bool{"list pods": true}
	_, err = d.Identity(t.Context())
	var refusal *engine.Refusal
	if !errors.As(err, &refusal) || refusal.Kind != engine.RefusedForbidden || !strings.Contains(refusal.Diagnosis.Remedy.Text, "in infra.yml exists") {
		t.Errorf("where nothing is granted: %v", err)
	}
}
