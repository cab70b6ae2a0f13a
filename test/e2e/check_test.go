//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/berth-run/berth"
)

// infra check starts a pod that proves its ways to the registry and to the
// control plane, says which of the two is barred and why, and leaves nothing.
func TestInfraCheckTriesTheWaysOfAPod(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true, "")
	check := func(code int) (registry, callback berth.CheckRow) {
		t.Helper()
		for _, row := range o.checked(code).Rows {
			switch {
			case row.What == "pod → DNS":
				names(t, row, code)
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
	closed := hostIP(t) + ":" + freePort(t, hostIP(t))
	set("registry: " + o.address + "\ncallback_to: " + closed + "\n")
	registry, callback := check(1)
	if registry.Status != berth.CheckOK || callback.Status != berth.CheckFailed || !strings.Contains(callback.Detail, closed) || !strings.Contains(callback.Detail, "refused") || callback.Remedy == "" {
		t.Errorf("where nothing listens for callbacks: %+v\n%+v", registry, callback)
	} else {
		produced(berth.CauseCallbackUnreachable)
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

// checked is what infra check gives, and its exit code.
func (s *site) checked(code int) berth.InfrastructureCheck {
	s.t.Helper()
	r := s.berth("infra", "check", "-o", "json")
	var c berth.InfrastructureCheck
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
		s.t.Fatalf("exit %d: %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if r.code != code {
		s.t.Errorf("exit %d, want %d\n%s", r.code, code, r.stdout)
	}
	return c
}

// names checks what is told of the names that a pod resolves: that it does
// where the cluster has a DNS, and otherwise that it does not.
func names(t *testing.T, row berth.CheckRow, code int) {
	t.Helper()
	_, err := admin.CoreV1().Services("kube-system").Get(t.Context(), "kube-dns", metav1.GetOptions{})
	switch {
	case code != 0: // the pod may not have started
	case err == nil && (row.Status != berth.CheckOK || !strings.Contains(row.Detail, "kubernetes.default.svc")):
		t.Errorf("with a DNS: %+v", row)
	case err != nil && (row.Status != berth.CheckWarning || !strings.Contains(row.Detail, "can't resolve names") || row.Remedy == ""):
		t.Errorf("without a DNS: %+v", row)
	}
}

// A cluster's engineer sees on one page what the namespace allows, and what is
// missing, with the numbers.
func TestInfraCheckTellsTheRulesOfTheNamespace(t *testing.T) {
	s := newSite(t)
	s.setQuota(corev1.ResourceList{"limits.cpu": resource.MustParse("2"), "pods": resource.MustParse("1")})
	s.limitRange(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{"cpu": resource.MustParse("500m")}})
	s.enforce("restricted")
	id := s.detach("--user", "1000", "--cpu", "250m", busybox, "sh", "-c", forever)
	s.withoutRight("watch", "events")
	rows := map[string]berth.CheckRow{}
	for _, row := range s.checked(0).Rows {
		rows[row.What] = row
	}
	for _, want := range []struct {
		what   string
		group  berth.CheckGroup
		status berth.CheckStatus
		words  []string
	}{
		{"server version", berth.CheckCluster, berth.CheckOK, []string{"v1."}},
		{"latency", berth.CheckCluster, berth.CheckOK, []string{"ms"}},
		{"clock", berth.CheckCluster, berth.CheckOK, []string{"within 1s"}},
		{"credentials", berth.CheckCluster, berth.CheckOK, []string{"token"}},
		{"create pods", "profile tasks", berth.CheckOK, nil},
		{"list limitranges", "profile tasks", berth.CheckOK, nil},
		{"watch events", "profile tasks", berth.CheckWarning, []string{"does not start"}},
		{"quota of-the-team: limits.cpu", berth.CheckNamespace, berth.CheckOK, []string{"250m of 2 in use (12%), 1750m left"}},
		{"quota of-the-team: pods", berth.CheckNamespace, berth.CheckWarning, []string{"1 of 1 in use (100%): tasks wait"}},
		{"LimitRange small: cpu of a container", berth.CheckNamespace, berth.CheckOK, []string{"at most 500m"}},
		{"Pod Security", berth.CheckNamespace, berth.CheckOK, []string{"restricted", "--user"}},
		{"a task's pod", berth.CheckNamespace, berth.CheckWarning, []string{"of-the-team", "pods: 1 asked for"}},
	} {
		row, found := rows[want.what]
		if !found || row.Group != want.group || row.Status != want.status {
			t.Errorf("%s: %+v", want.what, row)
		}
		for _, word := range want.words {
			if !strings.Contains(row.Detail, word) {
				t.Errorf("%s does not say %q: %s", want.what, word, row.Detail)
			}
		}
	}
	page := s.must("infra", "check")
	for line := range strings.Lines(page) {
		if len([]rune(line)) > 81 {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}
	s.must("task", "cancel", id)
}

// withoutRight takes a verb on a resource out of the site's Role.
func (s *site) withoutRight(verb, resource string) {
	s.t.Helper()
	s.mayBeRefused = true
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		role, err := admin.RbacV1().Roles(s.namespace).Get(s.t.Context(), "berth", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for i := range role.Rules {
			role.Rules[i].Verbs = without(role.Rules[i], verb, resource)
		}
		role.Rules = slices.DeleteFunc(role.Rules, func(rule rbacv1.PolicyRule) bool { return len(rule.Verbs) == 0 })
		_, err = admin.RbacV1().Roles(s.namespace).Update(s.t.Context(), role, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
