//go:build e2e

package e2e

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocireg "github.com/google/go-containerregistry/pkg/registry"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// missingSecretVolume is a patch that has a pod mount a Secret that isn't there.
const missingSecretVolume = `[{"op": "add", "path": "/spec/volumes", "value": [{"name": "certificates", "secret": {"secretName": "company-ca"}}]},
	{"op": "add", "path": "/spec/containers/0/volumeMounts", "value": [{"name": "certificates", "mountPath": "/certificates"}]}]`

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
		"mount":    missingSecretVolume,
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
	})
	s.infra("") // a node that is busy may take its time to say no
	s.fail([]diagnosisCase{
		{"a node that turns it away", altered("cpu-node", "--cpu", "512"), 125, berth.CauseInsufficientCPU, []string{"turned the task away", "512 CPU"}},
	})
}

// nodeName is the name of the cluster's node.
func nodeName(t *testing.T) string {
	t.Helper()
	nodes, err := admin.CoreV1().Nodes().List(background, metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	return nodes.Items[0].Name
}

func TestDiagnosisOfRulesOfTheCluster(t *testing.T) {
	s := newSite(t)
	s.record()
	s.infra(impatient)
	const rule = "rule" // a label
	s.refusePods(rule, "denied", admission(t, denial("images come from registry.example only")), "deny")
	policies, bindings := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies(), admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	namespace, object, rules := s.webhookScope(rule, "policy")
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: namespace, ObjectSelector: object,
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: rules[0]}},
			},
			Validations: []admissionregistrationv1.Validation{{Expression: "false", Message: "a cost centre is missing"}},
		},
	}
	if _, err := policies.Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = policies.Delete(background, policy.Name, metav1.DeleteOptions{}) })
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	if _, err := bindings.Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bindings.Delete(background, binding.Name, metav1.DeleteOptions{}) })
	s.untilRefused(rule, "policy")
	s.alterPods(map[string]string{"host": `[{"op": "add", "path": "/spec/hostNetwork", "value": true}]`})
	s.enforce("baseline")
	s.fail([]diagnosisCase{
		{"a webhook", []string{"--label", rule + "=denied", busybox, "true"}, 125, berth.CauseAdmissionDenied, []string{"deny.example.org", "images come from registry.example only"}},
		{"a policy", []string{"--label", rule + "=policy", busybox, "true"}, 125, berth.CauseAdmissionDenied, []string{"policy " + s.namespace, "a cost centre is missing"}},
		{"Pod Security", []string{"--label", alterLabel + "=host", busybox, "true"}, 125, berth.CausePodSecurityViolated, []string{"baseline", "hostNetwork"}},
	})
	for _, c := range []struct {
		entry string
		cause berth.Cause
		words []string
	}{
		{"priority_class: urgent", berth.CausePriorityClassNotFound, []string{"no priority class urgent"}},
		{"runtime_class: sandboxed", berth.CauseRuntimeClassNotFound, []string{"sandboxed"}},
		{"service_account: runner", berth.CauseServiceAccountNotFound, []string{"no service account runner"}},
	} {
		s.infra(impatient + "pod: {" + c.entry + "}\n")
		run := s.start(slices.Concat([]string{"run", "--name", string(c.cause)}, noPreflight, []string{busybox, "true"})...)
		if r := run.wait(within(t, 60*time.Second)); r.code != 125 {
			t.Errorf("%s: exit %d\n%s", c.entry, r.code, r.stderr)
		}
		check(t, s.explained(s.byName(string(c.cause))), c.cause, c.words...)
	}
}

// What has to be asked about each pod is away for a while: the task waits, and
// goes on by itself.
func TestDiagnosisOfAWebhookThatDoesNotAnswer(t *testing.T) {
	s := newSite(t)
	url := "https://" + closedPort(t, hostIP(t)) + "/"
	remove := s.refusePods("asks", "nobody", admissionregistrationv1.WebhookClientConfig{URL: &url}, "gone")
	run := s.start(slices.Concat([]string{"run", "--name", "asked", "--label", "asks=nobody"}, noPreflight, []string{busybox, "echo", "let through"})...)
	waitFor(t, "berth run says why it waits", 30*time.Second, func() bool { return strings.Contains(run.stderr.String(), "AdmissionDenied") })
	check(t, s.explained(s.byName("asked")), berth.CauseAdmissionDenied, "gone.example.org", "does not answer")
	remove()
	if r := run.wait(within(t, 60*time.Second)); r.code != 0 || r.stdout != "let through\n" {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
}

func TestDiagnosisOfNamespacesThatAreNotThere(t *testing.T) {
	s := newSite(t)
	entry := func(namespace string) {
		s.write("infra.yml", "infrastructures:\n  here:\n    kind: kube\n    namespace: "+namespace+"\n    credentials: {mechanism: config, path: "+adminKubeconfig+"}\n")
	}
	entry("never-made")
	s.refused(s.berth("run", busybox, "true"), "has no namespace never-made")
	produced(berth.CauseNamespaceNotFound)

	s = newSite(t)
	entry(s.namespace)
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.org/held"}}}
	maps := admin.CoreV1().ConfigMaps(s.namespace)
	if _, err := maps.Create(t.Context(), held, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := maps.Patch(background, held.Name, types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	if err := admin.CoreV1().Namespaces().Delete(t.Context(), s.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.fail([]diagnosisCase{{"being deleted", []string{busybox, "true"}, 125, berth.CauseNamespaceTerminating, []string{s.namespace, "being deleted"}}})
}

// A node that is full, and then stops: one task waits for it, and the one that
// runs there is lost.
func TestDiagnosisOfANodeThatIsFullAndThenStops(t *testing.T) {
	s := newSite(t)
	s.record()
	node := newSimulatedNode(t, s.namespace)
	s.infra("pod: {node_selector: {" + simulatedLabel + ": " + node.name + "}, tolerations: [{key: " + simulatedLabel + ", operator: Exists}, {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}]}\n")
	runs := s.start("run", "--name", "runs", busybox, "true")
	node.run()
	waits := s.start("run", "--name", "waits", busybox, "true")
	waitFor(t, "berth run says why it waits", 30*time.Second, func() bool { return strings.Contains(waits.stderr.String(), "TooManyPods") })
	check(t, s.explained(s.byName("waits")), berth.CauseTooManyPods, "1 Too many pods")

	node.report(corev1.ConditionFalse, "KubeletNotReady")
	waitFor(t, "berth run says that the node is gone", 30*time.Second, func() bool { return strings.Contains(runs.stderr.String(), "NodeLost") })
	check(t, s.explained(s.byName("runs")), berth.CauseNodeLost, "Node "+node.name)
	node.forceDelete()
	if r := runs.wait(within(t, 60*time.Second)); r.code != 125 || !strings.Contains(r.stderr, "NodeLost") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if task := s.task(s.byName("runs")); task.State != berth.StateLost || task.Diagnosis.Cause != berth.CauseNodeLost {
		t.Errorf("the task is %s, %+v", task.State, task.Diagnosis)
	}
	s.must("task", "cancel", s.byName("waits"))
}

func TestDiagnosisOfATaskThatMakesRoomForAnother(t *testing.T) {
	const gpu = "nvidia.com/gpu"
	s := newSite(t)
	s.record()
	classes := admin.SchedulingV1().PriorityClasses()
	if _, err := classes.Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}, Value: 1000}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = classes.Delete(background, s.namespace, metav1.DeleteOptions{}) })
	t.Cleanup(func() { setExtended(t, gpu, "") })
	setExtended(t, gpu, "1")
	run := s.start("run", "--name", "modest", "--gpu", "1", busybox, "sh", "-c", "echo begun; "+untilTold)
	waitFor(t, "it runs", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), "begun") })
	urgent := s.probePod("work", "urgent")
	urgent.Spec.PriorityClassName = s.namespace
	urgent.Spec.Containers[0].Resources.Limits = corev1.ResourceList{gpu: resource.MustParse("1")}
	if _, err := admin.CoreV1().Pods(s.namespace).Create(t.Context(), urgent, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := run.wait(within(t, 60*time.Second)); r.code != 3 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	check(t, s.explained(s.byName("modest")), berth.CausePreempted, "higher priority", nodeName(t))
}

// untilTold runs until it is told to end, and says that it did not finish.
const untilTold = "trap 'exit 3' TERM; while :; do sleep 0.1; done"

func TestDiagnosisOfWhatPeopleEnd(t *testing.T) {
	s := newSite(t)
	s.record()
	run := s.start("run", "--name", "deleted", busybox, "sh", "-c", "echo begun; "+untilTold)
	cancelled := s.detach("--name", "cancelled", busybox, "sh", "-c", forever)
	waitFor(t, "it runs", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), "begun") })
	id := s.byName("deleted")
	if err := admin.CoreV1().Pods(s.namespace).Delete(t.Context(), *s.task(id).Pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := run.wait(within(t, 60*time.Second)); r.code != 3 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	check(t, s.explained(id), berth.CauseDeletedExternally, "Somebody else deleted pod berth-"+id+"-1")
	s.must("task", "cancel", cancelled)
	if r := s.berth("task", "wait", cancelled); r.code != berth.ExitCancelled {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	check(t, s.explained(cancelled), berth.CauseCancelled, "cancelled")
}

// The node's network plugin has no addresses left.
func TestDiagnosisOfANodeWithoutAddresses(t *testing.T) {
	s := newSite(t)
	s.record()
	s.infra(impatient)
	path := filepath.Join(statePath(t, "cni"), "net.d", "10-localkube.conflist")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replaceFile(t, path, before) })
	replaceFile(t, path, []byte(`{"cniVersion": "0.4.0", "name": "full", "plugins": [{"type": "ptp", "ipam": {"type": "host-local",
		"dataDir": "`+t.TempDir()+`", "ranges": [[{"subnet": "10.250.0.0/29", "rangeStart": "10.250.0.1", "rangeEnd": "10.250.0.1"}]]}}]}`))
	s.fail([]diagnosisCase{{"no address", []string{busybox, "true"}, 125, berth.CauseSandboxFailed, []string{"Node " + nodeName(t)}}})
	if d := s.explained(s.byName("case-0")); !strings.Contains(d.Evidence[0].Text, "no IP addresses available") {
		t.Errorf("the network plugin's own words are not in the evidence: %+v", d.Evidence)
	}
}

// replaceFile writes a file at once, so that nobody reads half of it.
func replaceFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A program and an image for another processor than the node's.
func TestDiagnosisOfAnotherArchitecture(t *testing.T) {
	s := newSite(t)
	s.record()
	s.infra(impatient)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	program := "../../bin/berthlet-" + other
	address := registry(t, ocireg.New(ocireg.Logger(log.New(io.Discard, "", 0))).ServeHTTP)
	mislabelled, elsewhere := pushProgram(t, address+"/mislabelled:1", runtime.GOARCH, program), pushProgram(t, address+"/elsewhere:1", other, program)
	s.fail([]diagnosisCase{
		{"a program", []string{mislabelled}, 126, berth.CauseArchitectureMismatch, []string{"Node " + nodeName(t), "another kind of processor"}},
		{"an image", []string{elsewhere}, 125, berth.CauseArchitectureMismatch, []string{elsewhere, "not built for"}},
	})
}

// A clock that is far off makes the API server's certificate look expired, or
// not yet valid; and a proxy on the way may refuse. Tasks stay as they are.
func TestDiagnosisOfTheWayToTheCluster(t *testing.T) {
	s := newSite(t)
	network := s.throughProxy()
	expired, _ := listenTLS(t, "127.0.0.1", time.Now().Add(-time.Hour))
	early, _ := listenTLS(t, "127.0.0.1", time.Now().Add(100*24*time.Hour))
	for _, listener := range []net.Listener{expired, early} {
		go greet(listener)
	}
	behind := newSite(t)
	var barred atomic.Bool
	gate := &http.Server{Handler: connect(&barred)}
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go gate.Serve(door) //nolint:errcheck // it ends when it is closed
	t.Cleanup(func() { gate.Close() })
	inner := behind.throughProxy() // its connections are ended when the gate begins to refuse
	behind.editKubeconfig(func(cluster *api.Cluster, _ *api.AuthInfo) { cluster.ProxyURL = "http://" + door.Addr().String() })

	run := s.start("run", "--name", "clock", busybox, "sh", "-c", "echo begun; sleep 8; exit 5")
	other := behind.start("run", "--name", "barred", busybox, "sh", "-c", "echo begun; sleep 5; exit 6")
	waitFor(t, "both run", 60*time.Second, func() bool {
		return strings.Contains(run.stdout.String(), "begun") && strings.Contains(other.stdout.String(), "begun")
	})
	barred.Store(true)
	inner.drop()
	clock, gated := s.byName("clock"), behind.byName("barred")
	server := network.redirect(expired.Addr().String())
	s.diagnosed(clock, berth.CauseClusterUnreachable)
	check(t, s.explained(clock), berth.CauseClusterUnreachable, "certificate has expired, or this machine's clock is wrong")
	network.redirect(early.Addr().String())
	waitFor(t, "a certificate of the future is told", 30*time.Second, func() bool {
		d := s.task(clock).Diagnosis
		return d != nil && strings.Contains(d.Evidence[0].Text, "not yet valid")
	})
	check(t, s.explained(clock), berth.CauseClusterUnreachable, "this machine's clock is wrong")
	behind.diagnosed(gated, berth.CauseClusterUnreachable)
	check(t, behind.explained(gated), berth.CauseClusterUnreachable, "the proxy on the way does not let us through")
	network.redirect(server)
	barred.Store(false)
	if r := run.wait(within(t, 60*time.Second)); r.code != 5 {
		t.Errorf("after the clock was right: exit %d\n%s", r.code, r.stderr)
	}
	if r := other.wait(within(t, 60*time.Second)); r.code != 6 {
		t.Errorf("after the proxy let us through: exit %d\n%s", r.code, r.stderr)
	}
}

// greet shows a listener's certificate to whoever connects.
func greet(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() { _ = conn.(*tls.Conn).Handshake(); conn.Close() }()
	}
}

// connect is an HTTP proxy for CONNECT, which may be barred.
func connect(barred *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if barred.Load() || r.Method != http.MethodConnect {
			http.Error(w, "this way is barred", http.StatusForbidden)
			return
		}
		server, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer server.Close()
		w.WriteHeader(http.StatusOK)
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		go func() { _, _ = io.Copy(server, client); server.Close() }()
		_, _ = io.Copy(client, server)
	}
}
