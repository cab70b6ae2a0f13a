//go:build e2e

package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// A server that is killed at any step of a cluster's life leaves the cluster to the
// next one: nothing is made twice, and nothing is left.
func TestDaskClusterWhoseServerIsKilled(t *testing.T) {
	t.Parallel()
	o := officeFor(newSite(t, "clusters"))
	image, _ := daskImage(t, "debian")
	secrets := func() int {
		list, err := admin.CoreV1().Secrets(o.namespace).List(background, metav1.ListOptions{LabelSelector: berth.LabelCluster})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	pods := func(group string, count func(*corev1.Pod) bool) (n int) {
		for _, pod := range o.pods() {
			if pod.Labels[berth.LabelGroup] == group && count(&pod) {
				n++
			}
		}
		return n
	}
	any := func(*corev1.Pod) bool { return true }
	ends := func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil }
	// kill kills the server as soon as something holds, and starts it again.
	kill := func(when string, holds func() bool) {
		t.Helper()
		waitFor(t, when, time.Minute, holds)
		o.stop(syscall.SIGKILL)
		o.start()
	}
	create := append([]string{"cluster", "create", "dask", "--detach", "--name", "killed", "--software", image, "--pull", "never", "--workers", "2"}, small...)

	o.must(create...)
	kill("the keys are there", func() bool { return secrets() == 1 })
	kill("the head's pod is there", func() bool { return pods(berth.HeadGroup, any) == 1 })
	kill("a worker's pod is there", func() bool { return pods("workers", any) > 0 })
	c := o.createDask("killed", image, 2, "--workers", "2")
	o.must("cluster", "scale", "killed", "3")
	kill("a third worker is there", func() bool { return pods("workers", any) == 3 })
	o.must("cluster", "scale", "killed", "3", "--wait", "--wait-timeout", "2m")
	o.must("cluster", "scale", "killed", "1")
	kill("one that is too many ends", func() bool { return pods("workers", ends) > 0 || pods("workers", any) < 3 })
	o.must("cluster", "scale", "killed", "1", "--wait", "--wait-timeout", "2m")
	waitFor(t, "there is one of each, and no more", time.Minute, func() bool {
		return pods(berth.HeadGroup, any) == 1 && pods("workers", any) == 1 && secrets() == 1
	})
	numbers := map[string]bool{}
	for _, task := range o.tasks() {
		member := task.Spec.Labels[berth.LabelGroup] + "/" + strings.TrimPrefix(*task.Name, "killed-")
		if numbers[member] {
			t.Errorf("%s was made twice", member)
		}
		numbers[member] = true
	}
	if len(numbers) != 4 {
		t.Errorf("%d tasks were made, of 1 head and 3 workers", len(numbers))
	}
	if lost := o.cluster(c.ID).Groups[0].Lost; len(lost) != 0 {
		t.Errorf("lost: %v", lost)
	}
	conn, _ := o.connect("killed")
	if out := o.python(conn.client() + "say(client.submit(sum, range(10)).result())"); strings.TrimSpace(out) != strconv.Itoa(45) {
		t.Errorf("it computed %s", out)
	}
	o.must("cluster", "delete", "--detach", "killed")
	kill("its pods end", func() bool { return pods(berth.HeadGroup, ends) > 0 || pods(berth.HeadGroup, any) == 0 })
	kill("its pods are gone", func() bool { return len(o.pods()) == 0 })
	waitFor(t, "the cluster has ended", time.Minute, func() bool { return o.cluster(c.ID).State == berth.ClusterStopped })
	if left := o.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
