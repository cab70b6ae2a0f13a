//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// infra check starts a pod that proves its ways to the registry and to the
// control plane, says which of the two is barred and why, and leaves nothing.
func TestInfraCheckTriesTheWaysOfAPod(t *testing.T) {
	o := newOffice(t, true, "")
	check := func(code int) (registry, callback berth.CheckRow) {
		t.Helper()
		r := o.berth("infra", "check", "-o", "json")
		var c berth.InfrastructureCheck
		if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
			t.Fatalf("exit %d: %v\n%s%s", r.code, err, r.stdout, r.stderr)
		}
		if r.code != code {
			t.Errorf("exit %d, want %d\n%s", r.code, code, r.stdout)
		}
		for _, row := range c.Rows {
			switch {
			case strings.HasPrefix(row.What, "pod → registry "):
				registry = row
			case strings.HasPrefix(row.What, "pod → "):
				callback = row
			}
		}
		return registry, callback
	}
	if registry, callback := check(0); registry.Status != berth.CheckOK || callback.Status != berth.CheckOK {
		t.Errorf("where both are there: %+v\n%+v", registry, callback)
	}

	set := func(lines string) {
		t.Helper()
		o.stop(syscall.SIGTERM)
		o.infra(lines)
		o.start()
	}
	closed := hostAddress(t) + ":" + freePort(t, hostAddress(t))
	set("registry: " + o.address + "\ncallback_to: " + closed + "\n")
	registry, callback := check(1)
	if registry.Status != berth.CheckOK || callback.Status != berth.CheckFailed || !strings.Contains(callback.Detail, closed) || !strings.Contains(callback.Detail, "refused") || callback.Remedy == "" {
		t.Errorf("where nothing listens for callbacks: %+v\n%+v", registry, callback)
	}

	set("registry: " + o.address + "\ncallback_to: " + o.address + "\n")
	if err := os.RemoveAll(filepath.Join(os.Getenv("BERTH_E2E_STATE"), "certs.d", o.address)); err != nil {
		t.Fatal(err)
	}
	registry, callback = check(1)
	if registry.Status != berth.CheckFailed || !strings.Contains(registry.Detail, "does not trust its TLS certificate") || registry.Remedy == "" || callback.Status != berth.CheckWarning {
		t.Errorf("where nodes don't trust the registry: %+v\n%+v", registry, callback)
	}

	waitFor(t, "no pod of a check is left", 30*time.Second, func() bool {
		pods, err := admin.CoreV1().Pods(o.namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && len(pods.Items) == 0
	})
}
