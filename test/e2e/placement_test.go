//go:build e2e

package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth"
)

// twoPlaces gives a site a second infrastructure, of a namespace of its own.
func twoPlaces(t *testing.T) *site {
	t.Helper()
	s, other := newSite(t), newSite(t)
	s.write("infra.yml", "infrastructures:\n"+
		"  small:\n    kind: kube\n    labels: {site: delft}\n    limits: {max_pods: 1}\n    namespace: "+s.namespace+"\n    credentials: {mechanism: config, path: "+s.kubeconfig+"}\n"+
		"  large:\n    kind: kube\n    labels: {site: leiden, gpu: none}\n    limits: {max_pods: 4}\n    namespace: "+other.namespace+"\n    credentials: {mechanism: config, path: "+other.kubeconfig+"}\n")
	return s
}

func TestATaskWithoutAPlaceIsRunWhereThereIsRoom(t *testing.T) {
	s := twoPlaces(t)
	if r := s.berth("run", "--on", "site=leiden,gpu=none", busybox, "true"); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if task := s.tasks()[0]; task.Infrastructure != "large" {
		t.Errorf("it ran on %s", task.Infrastructure)
	}
	if r := s.berth("run", "--on", "site=paris", busybox, "true"); r.code != berth.ExitNone || !strings.Contains(r.stderr, "small has site=delft, not paris") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if r := s.berth("run", "--array", "0-9", busybox, "sleep", "1"); r.code != 0 {
		t.Errorf("the array: exit %d\n%s", r.code, r.stderr)
	}
	ran := map[string]int{}
	for _, task := range s.tasks() {
		if task.Array != nil {
			ran[task.Infrastructure]++
		}
	}
	if ran["small"] == 0 || ran["large"] <= ran["small"] || ran["small"]+ran["large"] != 10 {
		t.Errorf("they ran on %v", ran)
	}
}

// What the one infrastructure would never take runs on the other.
func TestATaskIsNotPlacedWhereItWouldNeverStart(t *testing.T) {
	s := twoPlaces(t)
	s.setQuota(corev1.ResourceList{corev1.ResourceRequestsCPU: resource.MustParse("100m"), corev1.ResourceLimitsCPU: resource.MustParse("100m")})
	if r := s.berth("run", "--cpu", "200m", busybox, "true"); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if task := s.tasks()[0]; task.Infrastructure != "large" {
		t.Errorf("it ran on %s", task.Infrastructure)
	}
}
