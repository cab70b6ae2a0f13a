//go:build e2e

package e2e

import (
	"context"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/drivertest"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/kube"
)

func TestTheKubernetesDriverKeepsItsPromises(t *testing.T) {
	s := newSite(t, "metrics")
	data, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	direct := berth.InfrastructureConfig{Name: "here", Kind: berth.KindKube, Credentials: berth.Credentials{Mechanism: "config", Path: s.kubeconfig}}
	client, err := kube.NewClient(direct, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(client.Server)
	if err != nil {
		t.Fatal(err)
	}
	link := drivertest.NewLink(t, "tcp", net.JoinHostPort("127.0.0.1", "0"), server.Host)
	linked := direct
	linked.Credentials = berth.Credentials{Mechanism: "config", Content: berth.Secret(strings.ReplaceAll(string(data), server.Host, link.Address))}
	ip := hostIP(t)
	drivertest.Run(t, drivertest.Harness{
		New: func(t *testing.T, instance string) engine.Driver {
			t.Helper()
			client, err := kube.NewClient(linked, kube.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			return kube.NewDriver(client, linked, instance)
		},
		Link:       link,
		Image:      busybox,
		NotFound:   registry(t, answer(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)) + "/tool:1",
		Private:    registry(t, answer(401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)) + "/tool:1",
		NoRegistry: plainHTTP(t, closedPort(t, ip)) + "/tool:1",
		Foreign: func(t *testing.T, name string) {
			t.Helper()
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: busybox, Command: []string{"sleep", "600"}}},
			}}
			if _, err := admin.CoreV1().Pods(s.namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { destroy(context.Background(), s.namespace, name) })
		},
		Labels: func(t *testing.T, name string) map[string]string {
			t.Helper()
			pod, err := admin.CoreV1().Pods(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return pod.Labels
		},
		Destroy: func(t *testing.T, name string) { destroy(t.Context(), s.namespace, name) },
	})
}

// destroy deletes a pod at once.
func destroy(ctx context.Context, namespace, name string) {
	zero := int64(0)
	_ = admin.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
}
