//go:build e2e

// Package e2e runs the berth binary on a real cluster, as people do. hack/e2e.sh
// brings a cluster up for it; BERTH_E2E_KUBECONFIG names its admin kubeconfig.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

const busybox = "docker.io/library/busybox:1.35"

var (
	berthBinary     string
	adminKubeconfig string
	admin           *kubernetes.Clientset
)

func TestMain(m *testing.M) {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	report := io.Writer(os.Stdout)
	if path := os.Getenv("BERTH_E2E_REPORT"); path != "" { // where it is shown also when all is well
		if file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			report = file
		}
	}
	for _, problem := range audit(report) {
		fmt.Fprintln(report, "audit:", problem)
		code = max(code, 1)
	}
	if all := summarize(report); !all && wholeRun() && code == 0 {
		fmt.Fprintln(report, "FAIL: a cause that this suite produces was not produced")
		code = 1
	}
	os.Exit(code)
}

func setUp() error {
	var err error
	if berthBinary, err = filepath.Abs("../../bin/berth"); err != nil {
		return err
	}
	if _, err := os.Stat(berthBinary); err != nil {
		return fmt.Errorf("run make build first: %w", err)
	}
	if adminKubeconfig = os.Getenv("BERTH_E2E_KUBECONFIG"); adminKubeconfig == "" {
		return errors.New("BERTH_E2E_KUBECONFIG is not set: run the tests with make test-e2e, which brings a cluster up")
	}
	config, err := clientcmd.BuildConfigFromFlags("", adminKubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 500, 1000
	admin, err = kubernetes.NewForConfig(config)
	return err
}

// site is a namespace of its own with a restricted kubeconfig, an infra.yml
// and a data directory: what one user has.
type site struct {
	t          *testing.T
	dir        string
	namespace  string
	kubeconfig string
	env        []string

	profiles     []permissions.Profile
	mayBeRefused bool // the test takes away what was granted
}

var siteCount struct {
	sync.Mutex
	n int
}

// newSite makes a namespace through create-kubeconfig, as an engineer would.
func newSite(t *testing.T, profiles ...string) *site {
	t.Helper()
	siteCount.Lock()
	siteCount.n++
	namespace := fmt.Sprintf("e2e-%d-%d", os.Getpid(), siteCount.n)
	siteCount.Unlock()
	granted, err := permissions.ParseProfiles(append([]string{"tasks"}, profiles...))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: t.TempDir(), namespace: namespace, profiles: granted}
	audited.Lock()
	if audited.sites == nil {
		audited.sites = map[string]*site{}
	}
	audited.sites[namespace] = s
	audited.Unlock()
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	r := s.berthEnv([]string{"KUBECONFIG=" + adminKubeconfig}, append([]string{"create-kubeconfig", "--namespace", namespace, "-o", s.kubeconfig}, profileFlags(profiles)...)...)
	if r.code != 0 {
		t.Fatalf("create-kubeconfig: exit %d\n%s", r.code, r.stderr)
	}
	t.Cleanup(func() {
		grace := int64(0)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = admin.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{})
		if err := admin.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Logf("deleting namespace %s: %v", namespace, err)
		}
	})
	s.infra("")
	waitFor(t, "the namespace's default service account", 30*time.Second, func() bool {
		_, err := admin.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	return s
}

func profileFlags(profiles []string) []string {
	if len(profiles) == 0 {
		return nil
	}
	return []string{"--profile", strings.Join(profiles, ",")}
}

// infra writes infra.yml, with more lines for the entry.
func (s *site) infra(more string) {
	s.t.Helper()
	text := "infrastructures:\n  here:\n    kind: kube\n    namespace: " + s.namespace + "\n    credentials: {mechanism: config, path: " + s.kubeconfig + "}\n"
	for line := range strings.Lines(more) {
		text += "    " + line
	}
	s.write("infra.yml", text+"\n")
}

func (s *site) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// command is a berth command line in the site's directory.
func (s *site) command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(berthBinary, args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}, append(s.env, env...)...)
	return cmd
}

func (s *site) berthEnv(env []string, args ...string) result {
	s.t.Helper()
	cmd := s.command(env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(began)}
}

func (s *site) berth(args ...string) result { s.t.Helper(); return s.berthEnv(nil, args...) }

// must runs a command that has to succeed and returns its output.
func (s *site) must(args ...string) string {
	s.t.Helper()
	r := s.berth(args...)
	if r.code != 0 {
		s.t.Fatalf("berth %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// detach submits a task and returns its id.
func (s *site) detach(args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must(append([]string{"run", "--detach"}, args...)...))
}

func (s *site) task(id string) berth.Task {
	s.t.Helper()
	var task berth.Task
	if err := json.Unmarshal([]byte(s.must("task", "get", id, "-o", "json")), &task); err != nil {
		s.t.Fatal(err)
	}
	return task
}

func (s *site) tasks() []berth.Task {
	s.t.Helper()
	var tasks []berth.Task
	if err := json.Unmarshal([]byte(s.must("task", "list", "--limit", "10000", "-o", "json")), &tasks); err != nil {
		s.t.Fatal(err)
	}
	return tasks
}

// events names what happened to a task.
func (s *site) events(id string) []berth.EventType {
	s.t.Helper()
	var events []berth.Event
	if err := json.Unmarshal([]byte(s.must("task", "events", id, "-o", "json")), &events); err != nil {
		s.t.Fatal(err)
	}
	var types []berth.EventType
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

func (s *site) pods() []corev1.Pod {
	s.t.Helper()
	list, err := admin.CoreV1().Pods(s.namespace).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// waitFor waits until something holds; it is asked often, as nothing tells.
func waitFor(t *testing.T, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// background outlives a test, for what is put back after it.
var background = context.Background()

// printed is all that a task printed, and what Berth says of its log.
func (s *site) printed(id string) string {
	s.t.Helper()
	r := s.berth("task", "logs", id)
	if r.code != 0 {
		s.t.Fatalf("berth task logs: exit %d\n%s", r.code, r.stderr)
	}
	return r.stdout + r.stderr
}
