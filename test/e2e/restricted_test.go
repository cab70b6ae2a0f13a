//go:build e2e

package e2e

import (
	"io"
	"log"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-run/berth"
)

// tool puts an image with a busybox, and the user that its programs run as,
// into a registry that the node can reach.
func tool(t *testing.T, user string) string {
	t.Helper()
	image := programImage(t, "/bin/busybox", runtime.GOARCH, v1.Config{User: user, Env: []string{"PATH=/"}, Cmd: []string{"id", "-u"}}, "sh", "bin/sh", "id")
	host := registry(t, ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))).ServeHTTP)
	ref, err := name.ParseReference(host+"/tool:1", name.Insecure)
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

// enforce makes the namespace enforce a level of Pod Security, and waits until
// that holds.
func (s *site) enforce(level string) {
	s.t.Helper()
	patch := `{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "` + level + `"}}}`
	if _, err := admin.CoreV1().Namespaces().Patch(s.t.Context(), s.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "the label holds", 30*time.Second, func() bool {
		privileged := true
		_, err := admin.CoreV1().Pods(s.namespace).Create(s.t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "privileged-"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: busybox, SecurityContext: &corev1.SecurityContext{Privileged: &privileged}}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
}

// A pod as Berth makes it by default is one that Pod Security restricted lets
// in, for an image that does not run as root: nothing has to be said.
func TestTheDefaultPodIsRestricted(t *testing.T) {
	s := newSite(t)
	image := tool(t, "65532:65532")
	for _, level := range []string{"baseline", "restricted"} {
		s.enforce(level)
		if r := s.berth("run", image); r.code != 0 || r.stdout != "65532\n" {
			t.Errorf("in a namespace that enforces %s: exit %d, %q\n%s", level, r.code, r.stdout, r.stderr)
		}
	}
	// So does one with the agent in it, which an init container brings.
	office := newOffice(t, false, "")
	office.enforce("restricted")
	office.write("steps.yaml", "version: 1\nimage: "+image+"\nsteps:\n- {name: who, run: id -u}\n")
	if r := office.berth("run", "-f", "steps.yaml"); r.code != 0 || r.stdout != "65532\n" {
		t.Errorf("with steps: exit %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
	// A root image says that it is the image, and what to do.
	if r := s.berth("run", busybox, "true"); r.code != berth.ExitNone {
		t.Errorf("a root image: exit %d\n%s", r.code, r.stderr)
	}
}
