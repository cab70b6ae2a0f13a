//go:build e2e

// Package chaos kills and cuts what Berth consists of and depends on, on a real
// cluster and with real processes, and has a ledger outside Berth decide
// whether its promises held: each program that a task runs tells the ledger
// when it begins and when it ends. See docs/chaos.md.
package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const busybox = "docker.io/library/busybox:1.35"

var (
	crashBinary     string // berth that dies where it is told to
	localkubeBinary string
	stateDir        string // of the cluster
	adminKubeconfig string
	admin           *kubernetes.Clientset
)

func TestMain(m *testing.M) {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func setUp() error {
	for path, variable := range map[string]*string{"../../../bin/berth-crash": &crashBinary, "../../../bin/localkube": &localkubeBinary} {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(absolute); err != nil {
			return fmt.Errorf("run make build bin/berth-crash first: %w", err)
		}
		*variable = absolute
	}
	if adminKubeconfig = os.Getenv("BERTH_E2E_KUBECONFIG"); adminKubeconfig == "" {
		return errors.New("BERTH_E2E_KUBECONFIG is not set: run make chaos, or make test-e2e, which bring a cluster up")
	}
	var err error
	if stateDir, err = filepath.Abs(os.Getenv("BERTH_E2E_STATE")); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", adminKubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 500, 1000
	admin, err = kubernetes.NewForConfig(config)
	return err
}

// statePath is a file in the folder of the cluster's state.
func statePath(name string) string { return filepath.Join(stateDir, name) }

// hostIP is this machine's address as pods see it.
func hostIP(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(statePath("host-ip"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// number is a parameter from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: a number is needed", name, text)
	}
	return n
}

// eventually waits until something holds; it is asked often, as nothing tells.
func eventually(t *testing.T, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
		<-time.After(50 * time.Millisecond)
	}
}
