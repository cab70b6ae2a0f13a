//go:build e2e

package e2e

import (
	"testing"

	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// A cluster's webhooks put into pods what Berth never asked for.
func TestDiagnosisOfPodsThatAWebhookAlters(t *testing.T) {
	s := newSite(t)
	s.record()
	s.infra(impatient)
	runtimes := admin.NodeV1().RuntimeClasses()
	if _, err := runtimes.Create(t.Context(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}, Handler: "unheard-of"}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runtimes.Delete(background, s.namespace, metav1.DeleteOptions{}) })
	s.alterPods(map[string]string{
		"claim":    `[{"op": "add", "path": "/spec/volumes", "value": [{"name": "data", "persistentVolumeClaim": {"claimName": "results"}}]}]`,
		"config":   `[{"op": "add", "path": "/spec/containers/0/envFrom", "value": [{"configMapRef": {"name": "settings"}}]}]`,
		"secret":   `[{"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}]}]`,
		"mount":    `[{"op": "add", "path": "/spec/volumes", "value": [{"name": "certificates", "secret": {"secretName": "company-ca"}}]},
			{"op": "add", "path": "/spec/containers/0/volumeMounts", "value": [{"name": "certificates", "mountPath": "/certificates"}]}]`,
		"init":     `[{"op": "add", "path": "/spec/initContainers", "value": [{"name": "prepare", "image": "` + busybox + `", "command": ["sh", "-c", "exit 3"]}]}]`,
		"runtime":  `[{"op": "add", "path": "/spec/runtimeClassName", "value": "` + s.namespace + `"}]`,
		"name":     `[{"op": "replace", "path": "/spec/containers/0/image", "value": "registry.example/Tools/x:1"}]`,
		"gate":     `[{"op": "add", "path": "/spec/schedulingGates", "value": [{"name": "example.org/queue"}]}]`,
		"sysctl":   `[{"op": "add", "path": "/spec/securityContext/sysctls", "value": [{"name": "kernel.shm_rmid_forced", "value": "many"}]}]`,
		"cpu-node": `[{"op": "add", "path": "/spec/nodeName", "value": "` + nodeName(t) + `"}]`,
	})
	altered := func(how string, args ...string) []string {
		return append(append([]string{"--label", alterLabel + "=" + how}, args...), busybox, "true")
	}
	s.fail([]diagnosisCase{
		{"a claim that is not there", altered("claim"), 125, berth.CauseVolumeUnbound, []string{`persistentvolumeclaim "results" not found`}},
		{"a missing ConfigMap", altered("config"), 125, berth.CauseConfigNotFound, []string{`configmap "settings"`, s.namespace}},
		{"a missing Secret", altered("secret"), 125, berth.CauseConfigNotFound, []string{`secret "database"`}},
		{"a missing Secret as a volume", altered("mount"), 125, berth.CauseMountFailed, []string{"company-ca"}},
		{"an init container that fails", altered("init"), 125, berth.CauseInitFailed, []string{"prepare", "exit code 3"}},
		{"a runtime that the node lacks", altered("runtime"), 125, berth.CauseRuntimeClassNotFound, []string{"unheard-of"}},
		{"a bad name of an image", altered("name"), 125, berth.CauseInvalidImageName, []string{"registry.example/Tools/x:1"}},
		{"a gate", altered("gate"), 125, berth.CauseUnknown, []string{"example.org/queue"}},
		{"a sandbox that the runtime refuses", altered("sysctl"), 125, berth.CauseSandboxFailed, []string{"Node " + nodeName(t)}},
		{"a node that turns it away", altered("cpu-node", "--cpu", "512"), 125, berth.CauseInsufficientCPU, []string{"turned the task away", "512 CPU"}},
	})
}

// nodeName is the name of the cluster's node.
func nodeName(t *testing.T) string {
	t.Helper()
	nodes, err := admin.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	return nodes.Items[0].Name
}
