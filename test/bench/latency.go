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
	var bare, full, added []time.Duration
	for i := range runs + 2 {
		b, err := barePod(ctx, c, namespace)
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
		bare, full, added = append(bare, b), append(full, f), append(added, f-b)
	}
	p50, p99 := percentile(bare, 0.5), percentile(bare, 0.99)
	fmt.Printf("bare pod, created and watched:  p50 %s, p99 %s\n", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	fmt.Printf("berth run, the whole process:   p50 %s, p99 %s\n", percentile(full, 0.5).Round(time.Millisecond), percentile(full, 0.99).Round(time.Millisecond))
	fmt.Printf("added by berth run, pair by pair: p50 %s, p99 %s\n", percentile(added, 0.5).Round(time.Millisecond), percentile(added, 0.99).Round(time.Millisecond))
	fmt.Printf("latency ratio: p50 %.2f, p99 %.2f\n", percentile(full, 0.5).Seconds()/p50.Seconds(), percentile(full, 0.99).Seconds()/p99.Seconds())
	return nil
}

// barePod makes a pod, watches it end, and deletes it outside of the measured time.
func barePod(ctx context.Context, c *kubernetes.Clientset, namespace string) (time.Duration, error) {
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
		if pod, ok := event.Object.(*corev1.Pod); ok && pod.Status.Phase == corev1.PodSucceeded {
			took := time.Since(began)
			return took, pods.Delete(ctx, name, metav1.DeleteOptions{})
		}
	}
	return 0, fmt.Errorf("the watch of pod %s was closed", name)
}
