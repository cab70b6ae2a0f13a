//go:build e2e

package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const busybox = "docker.io/library/busybox:1.35"

func TestScriptsOnACluster(t *testing.T) {
	kubeconfig := newNamespace(t)
	bothWays(t, "testdata/cluster", func(env *testscript.Env) error {
		data, err := os.ReadFile(kubeconfig)
		if err != nil {
			return err
		}
		env.Setenv("IMAGE", busybox)
		env.Setenv("OWNER", localUser())
		env.Setenv("FOREVER", `trap "exit 0" TERM; while true; do sleep 0.1; done`)
		return os.WriteFile(filepath.Join(env.WorkDir, "kubeconfig"), data, 0o600)
	})
}

// newNamespace makes a namespace with what tasks need, and returns a kubeconfig
// for it alone.
func newNamespace(t *testing.T) string {
	t.Helper()
	adminPath := os.Getenv("BERTH_E2E_KUBECONFIG")
	if adminPath == "" {
		t.Fatal("BERTH_E2E_KUBECONFIG is not set: run the tests with make test-e2e, which brings a cluster up")
	}
	config, err := clientcmd.BuildConfigFromFlags("", adminPath)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	namespace := fmt.Sprintf("cli-%d-%s", os.Getpid(), strings.ToLower(t.Name()[4:min(len(t.Name()), 20)]))
	path := filepath.Join(t.TempDir(), "kubeconfig")
	cmd := exec.Command("berth", "create-kubeconfig", "--namespace", namespace, "-o", path)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+adminPath)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("create-kubeconfig: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		grace := int64(0)
		_ = admin.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{})
		if err := admin.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
			t.Logf("deleting namespace %s: %v", namespace, err)
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err := admin.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{}); err == nil {
			return path
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// crowd runs command lines at once through a server, each printing two lines
// three seconds apart and ending with exit code 7, and tells what went wrong.
func crowd(t *testing.T, s *serverProcess, token string, size int, meanwhile func()) {
	t.Helper()
	dir := t.TempDir()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "BERTH_SERVER=" + s.url, "BERTH_TOKEN=" + token, "BERTH_CA_FILE=" + s.ca()}
	var wg sync.WaitGroup
	for i := range size {
		wg.Go(func() {
			cmd := exec.Command("berth", "run", "--name", "crowd", busybox, "sh", "-c", fmt.Sprintf("echo begun %d; sleep 3; echo done %d; exit 7", i, i))
			cmd.Dir, cmd.Env = dir, env
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			want := fmt.Sprintf("begun %d\ndone %d\n", i, i)
			if code := cmd.ProcessState.ExitCode(); code != 7 || string(out) != want {
				t.Errorf("command %d: exit code %d (%v), output %q, want 7 and %q\n%s", i, code, err, out, want, stderr.String())
			}
		})
	}
	meanwhile()
	wg.Wait()
	cmd := exec.Command("berth", "task", "list", "--name", "crowd", "--state", "failed", "--limit", "1000")
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.Output()
	if n := strings.Count(string(out), " crowd "); err != nil || n != size {
		t.Errorf("there are %d tasks, want %d: %v\n%s", n, size, err, out)
	}
}

// newServer starts a server for a test that isn't a script.
func newServer(t *testing.T) *serverProcess {
	t.Helper()
	dir := t.TempDir()
	s := &serverProcess{dir: dir, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func crowdedServer(t *testing.T) (*serverProcess, string) {
	t.Helper()
	kubeconfig := newNamespace(t)
	s := newServer(t)
	if _, err := s.berth("infra", "add", "here", "--kubeconfig", kubeconfig); err != nil {
		t.Fatal(err)
	}
	token, err := s.berth("server", "token", "create", "ann")
	if err != nil {
		t.Fatal(err)
	}
	return s, token
}

func TestAServerThatIsRestartedUnderLoadLosesAndDoublesNothing(t *testing.T) {
	s, token := crowdedServer(t)
	pid := s.cmd.Process.Pid
	crowd(t, s, token, 20, func() {
		for range 4 {
			<-time.After(700 * time.Millisecond)
			if err := s.restart(); err != nil {
				t.Error(err)
			}
		}
	})
	if s.cmd.Process.Pid != pid || !strings.Contains(s.stderr.String(), "pid="+strconv.Itoa(pid)) {
		t.Errorf("the server is no longer process %d:\n%s", pid, s.stderr.String())
	}
}

func TestAServerThatIsKilledAndStartedAgainLosesAndDoublesNothing(t *testing.T) {
	s, token := crowdedServer(t)
	crowd(t, s, token, 20, func() {
		<-time.After(1500 * time.Millisecond)
		if err := s.kill(); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := s.start(); err != nil {
			t.Error(err)
		}
	})
}
