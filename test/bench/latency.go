package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// latency compares berth run, from the start of its process to its end, with
// a bare pod that is created and watched until it has ended, in turn.
func latency(ctx context.Context, kubeconfig, berth string, runs int) error {
	_, c, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	const namespace = "bench"
	dir, err := os.MkdirTemp("", "berth-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	absolute, err := filepath.Abs(berth)
	if err != nil {
		return err
	}
	admin, err := filepath.Abs(kubeconfig)
	if err != nil {
		return err
	}
	command := func(env string, args ...string) error {
		cmd := exec.CommandContext(ctx, absolute, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), env)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("berth %v: %w\n%s", args, err, out)
		}
		return nil
	}
	if err := command("KUBECONFIG="+admin, "create-kubeconfig", "-n", namespace, "-o", "kubeconfig"); err != nil {
		return err
	}
	if err := command("", "infra", "add", "bench", "--kubeconfig", "kubeconfig"); err != nil {
		return err
	}
	if err := ready(ctx, c, namespace); err != nil {
		return err
	}
	var bare, same, full, added []time.Duration
	for i := range runs + 2 {
		b, err := barePod(ctx, c, namespace, true)
		if err != nil {
			return err
		}
		e, err := barePod(ctx, c, namespace, false)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := command("", "run", image, "true"); err != nil {
			return err
		}
		f := time.Since(began)
		if i < 2 {
			continue // warm-up
		}
		bare, same, full, added = append(bare, b), append(same, e), append(full, f), append(added, f-e)
	}
	line := func(what string, values []time.Duration) {
		fmt.Printf("%-64s p50 %s, p99 %s\n", what, percentile(values, 0.5).Round(time.Millisecond), percentile(values, 0.99).Round(time.Millisecond))
	}
	line("bare pod, watched until its phase is Succeeded:", bare)
	line("bare pod, watched until its container has ended, as Berth does:", same)
	line("berth run, the whole process:", full)
	line("added by berth run to the latter, pair by pair:", added)
	for _, against := range []struct {
		what   string
		values []time.Duration
	}{{"the pod's phase", bare}, {"the container's end", same}} {
		fmt.Printf("latency ratio to %s: p50 %.2f, p99 %.2f\n", against.what, percentile(full, 0.5).Seconds()/percentile(against.values, 0.5).Seconds(), percentile(full, 0.99).Seconds()/percentile(against.values, 0.99).Seconds())
	}
	return nil
}

// barePod makes a pod, watches it end, and deletes it outside of the measured time.
// With phase the pod's phase is waited for, which the kubelet tells about a
// second after the end of the pod's container.
func barePod(ctx context.Context, c *kubernetes.Clientset, namespace string, phase bool) (time.Duration, error) {
	name := fmt.Sprintf("bare-%d", time.Now().UnixNano())
	pods := c.CoreV1().Pods(namespace)
	began := time.Now()
	created, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: image, Args: []string{"true"}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, err
	}
	watcher, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), ResourceVersion: created.ResourceVersion})
	if err != nil {
		return 0, err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if ok && (pod.Status.Phase == corev1.PodSucceeded || !phase && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Terminated != nil) {
			took := time.Since(began)
			return took, pods.Delete(ctx, name, metav1.DeleteOptions{})
		}
	}
	return 0, fmt.Errorf("the watch of pod %s was closed", name)
}
