//go:build e2e

package chaos

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// daskImage has the node have the image of examples/dask that is made from Debian's
// packages.
var daskImage = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("../../../hack/dask-image.sh", "debian")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	image, archive, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	return image, localkube("load", archive)
})

// made counts the pods of each group that there ever were in a namespace.
func made(t *testing.T, n *namespace) func() map[string]int {
	t.Helper()
	watch, err := admin.CoreV1().Pods(n.name).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watch.Stop)
	var mu sync.Mutex
	seen := map[string]string{} // group by UID
	go func() {
		for event := range watch.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok {
				mu.Lock()
				seen[string(pod.UID)] = pod.Labels[berth.LabelGroup]
				mu.Unlock()
			}
		}
	}()
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		out := map[string]int{}
		for _, group := range seen {
			out[group]++
		}
		return out
	}
}

// crashInCluster has a compute cluster live its life while the control plane dies
// at a point: one head and one pod for each worker that was asked for are made,
// and nothing is left.
func crashInCluster(t *testing.T, point string) {
	image, err := daskImage()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkload(t)
	n := newNamespace(t, "clusters")
	pods := made(t, n)
	p := newPlane(t, n, "", "")
	p.start(point)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	submission := berth.ClusterSubmission{Key: "once", Spec: berth.ClusterSpec{
		Name: "crashed", Engine: berth.EngineDask, Image: image, Pull: berth.PullNever, DrainTimeout: berth.DefaultDrainTimeout,
		Env:  []berth.EnvVar{{Name: "BERTH_WORKER_THREADS", Value: "1"}},
		Head: berth.ClusterGroup{Name: berth.HeadGroup, Memory: "400Mi"}, Workers: []berth.ClusterGroup{{Name: berth.WorkerGroup, Count: 1, Memory: "300Mi"}},
	}}
	cluster, err := persist(ctx, w, "creating the cluster", func() (berth.Cluster, error) { return p.service.CreateCluster(ctx, submission) })
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, holds func(*berth.Cluster) bool) {
		t.Helper()
		eventually(t, what, 2*time.Minute, func() bool {
			cluster, err = persist(ctx, w, "looking at the cluster", func() (berth.Cluster, error) { return p.service.Cluster(ctx, cluster.ID) })
			if err != nil {
				t.Fatal(err)
			}
			return holds(&cluster)
		})
	}
	for _, workers := range []int{1, 2, 1} {
		scale := berth.ClusterScale{ID: cluster.ID, Count: workers}
		if _, err := persist(ctx, w, "scaling the cluster", func() (berth.Cluster, error) { return p.service.ScaleCluster(ctx, scale) }); err != nil {
			t.Fatal(err)
		}
		await("the workers are there", func(c *berth.Cluster) bool {
			g := c.Groups[0]
			return c.State == berth.ClusterRunning && g.Ready == workers && g.Waiting == 0 && g.Draining == 0
		})
	}
	if len(cluster.Groups[0].Lost) > 0 {
		t.Errorf("lost: %v", cluster.Groups[0].Lost)
	}
	if _, err := persist(ctx, w, "deleting the cluster", func() (berth.Cluster, error) { return p.service.DeleteCluster(ctx, cluster.ID) }); err != nil {
		t.Fatal(err)
	}
	await("the cluster has ended", func(c *berth.Cluster) bool { return c.State.Terminal() })
	if cluster.State != berth.ClusterStopped {
		t.Errorf("%s: %+v", cluster.State, cluster.Reason)
	}
	if got := pods(); got[berth.HeadGroup] != 1 || got[berth.WorkerGroup] != 2 || len(got) != 2 {
		t.Errorf("pods that were made: %v", got)
	}
	left, err := n.pods("")
	if err != nil || len(left) > 0 {
		t.Errorf("%d pods are left, %v", len(left), err)
	}
	secrets, err := admin.CoreV1().Secrets(n.name).List(ctx, metav1.ListOptions{LabelSelector: berth.LabelCluster})
	if err != nil || len(secrets.Items) > 0 {
		t.Errorf("%d Secrets are left, %v", len(secrets.Items), err)
	}
	if !p.dies(1, 10*time.Second) {
		t.Errorf("nothing that a cluster does passes %s", point)
	}
}
