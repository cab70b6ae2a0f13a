//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// granted is what the site's Role grants.
func (s *site) granted() []string {
	s.t.Helper()
	role, err := admin.RbacV1().Roles(s.namespace).Get(s.t.Context(), "berth", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	var granted []string
	for _, rule := range role.Rules {
		for _, resource := range rule.Resources {
			if group := rule.APIGroups[0]; group != "" {
				resource += "." + group
			}
			for _, verb := range rule.Verbs {
				if what := uses(verb, resource); !slices.Contains(granted, what) {
					granted = append(granted, what)
				}
			}
		}
	}
	return granted
}

// TestAccessIsWhatIsGranted does what people do, with the kubeconfig of
// create-kubeconfig: nothing is refused, and nothing is granted in vain.
func TestAccessIsWhatIsGranted(t *testing.T) {
	s := newSite(t)
	network := s.throughProxy()
	s.infra(impatient)

	s.must("infra", "check")
	if got := s.must("run", busybox, "echo", "hello"); got != "hello\n" {
		t.Errorf("output %q", got)
	}
	if r := s.berth("run", "--retries", "1", busybox, "sh", "-c", "exit 3"); r.code != 3 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	id := s.detach(busybox, "sh", "-c", "echo detached; sleep 1")
	s.must("task", "wait", id)
	if got := s.must("task", "logs", id); got != "detached\n" {
		t.Errorf("log %q", got)
	}
	if r := s.berth("run", "--memory", "64Ti", busybox, "true"); r.code != 125 {
		t.Errorf("a task that fits nowhere: exit %d\n%s", r.code, r.stderr)
	}
	s.must("infra", "list")

	s.runUntilKilled()
	s.intendUntilKilled(network)
	s.waitForQuota()

	var unused []string
	defer func() {
		if len(unused) > 0 {
			t.Errorf("granted, and never used: %s", strings.Join(unused, ", "))
		}
	}()
	granted := s.granted()
	waitFor(t, "all that is granted was used", 30*time.Second, func() bool { // watches are told when they end
		var used []string
		for _, r := range s.requests() {
			used = append(used, r.uses())
		}
		unused = slices.DeleteFunc(slices.Clone(granted), func(what string) bool { return slices.Contains(used, what) })
		return len(unused) == 0
	})
	for _, r := range s.requests() {
		if r.refused() {
			t.Errorf("refused: %s %s", r.Verb, r.RequestURI)
		}
	}
}

// runUntilKilled kills the host of a running task; whoever comes next adopts it.
func (s *site) runUntilKilled() {
	s.t.Helper()
	host := s.start("run", "--name", "orphan", busybox, "sh", "-c", "echo begun; sleep 3; exit 4")
	waitFor(s.t, "it runs", 60*time.Second, func() bool { return strings.Contains(host.stdout.String(), "begun") })
	host.kill()
	<-host.done
	if r := s.berth("task", "wait", s.byName("orphan")); r.code != 4 {
		s.t.Errorf("adopted: exit %d\n%s", r.code, r.stderr)
	}
}

// intendUntilKilled kills the host between the intent to create a pod and its
// creation; whoever comes next looks whether it exists, and creates it.
func (s *site) intendUntilKilled(network *proxy) {
	s.t.Helper()
	host := s.start("run", "--name", "host", busybox, "sh", "-c", "echo begun; "+forever)
	waitFor(s.t, "it runs", 60*time.Second, func() bool { return strings.Contains(host.stdout.String(), "begun") })
	network.swallow()
	guest := s.start("run", "--name", "intended", busybox, "echo", "after all")
	waitFor(s.t, "its pod is intended", 30*time.Second, func() bool {
		for _, task := range s.tasks() {
			if task.Name != nil && *task.Name == "intended" {
				return task.State == berth.StateLaunching
			}
		}
		return false
	})
	host.kill()
	guest.kill()
	<-host.done
	<-guest.done
	network.restore()
	id := s.byName("intended")
	if r := s.berth("task", "wait", id); r.code != 0 {
		s.t.Errorf("intended: exit %d\n%s", r.code, r.stderr)
	}
	if got := s.must("task", "logs", id); got != "after all\n" {
		s.t.Errorf("intended: log %q", got)
	}
	s.must("task", "cancel", s.byName("host"))
	if r := s.berth("task", "wait", s.byName("host")); r.code != berth.ExitCancelled {
		s.t.Errorf("cancelled: exit %d\n%s", r.code, r.stderr)
	}
}

// waitForQuota lets a task wait until a quota has room.
func (s *site) waitForQuota() {
	s.t.Helper()
	waitFor(s.t, "no pod is left", 60*time.Second, func() bool { s.must("task", "list"); return len(s.pods()) == 0 })
	s.setQuota(corev1.ResourceList{"pods": resource.MustParse("0")})
	run := s.start("run", "--no-preflight", busybox, "echo", "there is room")
	waitFor(s.t, "it waits for the quota", 30*time.Second, func() bool { return strings.Contains(run.stderr.String(), "QuotaExceeded") })
	s.setQuota(corev1.ResourceList{"pods": resource.MustParse("9")})
	if r := run.wait(within(s.t, 60*time.Second)); r.code != 0 || r.stdout != "there is room\n" {
		s.t.Errorf("after the quota: exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
}

func TestAccessDryRunContactsNothing(t *testing.T) {
	s := &site{t: t, dir: t.TempDir()}
	for _, env := range [][]string{nil, {"KUBECONFIG=/nowhere/kubeconfig"}} {
		r := s.berthEnv(env, "create-kubeconfig", "--dry-run", "--namespace", "never-made", "-o", "kubeconfig")
		if r.code != 0 || r.took > 5*time.Second {
			t.Fatalf("exit %d after %s\n%s", r.code, r.took, r.stderr)
		}
		kinds := map[string]int{}
		for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(r.stdout), 4096); ; {
			var object struct {
				APIVersion, Kind string
				Metadata         struct{ Name, Namespace string }
			}
			if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v\n%s", err, r.stdout)
			}
			if object.APIVersion == "" || object.Metadata.Name == "" || object.Kind != "Namespace" && object.Metadata.Namespace != "never-made" {
				t.Errorf("%+v", object)
			}
			kinds[object.Kind]++
		}
		for _, kind := range []string{"Namespace", "ServiceAccount", "Role", "RoleBinding", "Secret"} {
			if kinds[kind] != 1 {
				t.Errorf("%d of kind %s", kinds[kind], kind)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "kubeconfig")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written: %v", err)
	}
}

func TestAccessFileIsForItsOwnerAloneAndNeverOverwritten(t *testing.T) {
	s := newSite(t)
	info, err := os.Stat(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode(); mode != 0o600 {
		t.Errorf("mode %s", mode)
	}
	before, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	create := func(more ...string) result {
		t.Helper()
		return s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, append([]string{"create-kubeconfig", "--namespace", s.namespace, "-o", s.kubeconfig}, more...)...)
	}
	s.refused(create(), "exists", "--force")
	if after, err := os.ReadFile(s.kubeconfig); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	if r := create("--force"); r.code != 0 {
		t.Errorf("--force: exit %d\n%s", r.code, r.stderr)
	}
	s.must("infra", "check")
}

func TestAccessForATime(t *testing.T) {
	s := newSite(t)
	if err := admin.CoreV1().Secrets(s.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, "create-kubeconfig", "--namespace", s.namespace, "-o", s.kubeconfig, "--force", "--ttl", "15m")
	if r.code != 0 || !strings.Contains(r.stderr, "expires on") {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	s.must("infra", "check")
	var claims struct{ Exp int64 }
	s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) {
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(user.Token, ".")[1])
		if err == nil {
			err = json.Unmarshal(payload, &claims)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if left := time.Until(time.Unix(claims.Exp, 0)); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("the token expires in %s", left)
	}
	secrets, err := admin.CoreV1().Secrets(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(secrets.Items) != 0 {
		t.Errorf("%d Secrets, %v", len(secrets.Items), err)
	}
}

func TestAccessRotatedEndsTheTokenBefore(t *testing.T) {
	s := newSite(t)
	s.must("infra", "check")
	r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, "create-kubeconfig", "--namespace", s.namespace, "-o", "rotated", "--rotate")
	if r.code != 0 || !strings.Contains(r.stderr, "withdrawn") {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	waitFor(t, "the token before fails", 60*time.Second, func() bool { r = s.berth("infra", "check"); return r.code != 0 })
	s.refused(r, "does not accept the credentials", "create-kubeconfig")
	rotated, err := os.ReadFile(filepath.Join(s.dir, "rotated"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("kubeconfig", string(rotated))
	s.must("infra", "check")
	if got := s.must("run", busybox, "echo", "rotated"); got != "rotated\n" {
		t.Errorf("output %q", got)
	}
}
