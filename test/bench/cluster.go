package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/berth-run/berth"
)

// stays is what has simulated containers go on.
var stays = map[string]string{"localkube/stay": "true"}

// computeCluster compares a compute cluster of many workers with as many bare pods:
// until all run, and from their deletion until all are gone. Nothing of an engine
// runs in simulated pods, so that it is Berth's own work that is measured.
func computeCluster(ctx context.Context, kubeconfig string, workers, rounds int) error {
	_, c, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	namespace := fmt.Sprintf("stay-%d", time.Now().Unix())
	if _, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := ready(ctx, c, namespace); err != nil {
		return err
	}
	service, closeService, err := openService(ctx, kubeconfig, namespace, workers+10)
	if err != nil {
		return err
	}
	defer closeService()
	var own, ending []float64
	for round := range rounds + 1 {
		bareUp, bareDown, err := barePods(ctx, c, namespace, workers+1)
		if err != nil {
			return err
		}
		up, down, err := oneCluster(ctx, service, c, namespace, workers)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("round %d", round)
		if round == 0 {
			name = "warm-up"
		} else {
			own, ending = append(own, (up-bareUp).Seconds()), append(ending, (down-bareDown).Seconds())
		}
		fmt.Printf("%s: %d bare pods run after %s and are gone after %s; a cluster of %d workers after %s and %s; ratios %.2f and %.2f\n", name, workers+1,
			bareUp.Round(time.Millisecond), bareDown.Round(time.Millisecond), workers, up.Round(time.Millisecond), down.Round(time.Millisecond), bareUp.Seconds()/up.Seconds(), bareDown.Seconds()/down.Seconds())
	}
	fmt.Printf("cluster of %d workers, medians of Berth's own time: %.2f s until all run, %.2f s until all are gone; nothing was left\n", workers, median(own), median(ending))
	return nil
}

// barePods makes pods, one call after the other on one connection as a script
// would, waits until all run, and deletes them.
func barePods(ctx context.Context, c *kubernetes.Clientset, namespace string, n int) (up, down time.Duration, err error) {
	began := time.Now()
	for i := range n {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bare-%d", i), Labels: stays},
			Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: image, Args: []string{"true"}}}},
		}
		if _, err := c.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return 0, 0, err
		}
	}
	if err := podsAre(ctx, c, namespace, n, n); err != nil {
		return 0, 0, err
	}
	up = time.Since(began)
	began = time.Now()
	for i := range n {
		if err := c.CoreV1().Pods(namespace).Delete(ctx, fmt.Sprintf("bare-%d", i), metav1.DeleteOptions{}); err != nil {
			return 0, 0, err
		}
	}
	return up, time.Since(began), podsAre(ctx, c, namespace, 0, 0)
}

// podsAre waits until there are so many pods, of which so many run.
func podsAre(ctx context.Context, c *kubernetes.Clientset, namespace string, all, running int) error {
	for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(lookEvery) {
		list, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		run := 0
		for i := range list.Items {
			if list.Items[i].Status.Phase == corev1.PodRunning {
				run++
			}
		}
		if len(list.Items) == all && run == running {
			return nil
		}
	}
	return fmt.Errorf("there are not %d pods, of which %d run", all, running)
}

func oneCluster(ctx context.Context, service berth.Service, c *kubernetes.Clientset, namespace string, workers int) (up, down time.Duration, err error) {
	began := time.Now()
	cluster, err := service.CreateCluster(ctx, berth.ClusterSubmission{Spec: berth.ClusterSpec{Engine: berth.EngineDask, Image: image, Labels: stays, Workers: []berth.ClusterGroup{{Count: workers}}}})
	if err != nil {
		return 0, 0, err
	}
	if err := podsAre(ctx, c, namespace, workers+1, workers+1); err != nil {
		return 0, 0, err
	}
	up = time.Since(began)
	began = time.Now()
	if _, err := service.DeleteCluster(ctx, cluster.ID); err != nil {
		return 0, 0, err
	}
	for now, err := range service.WatchCluster(ctx, cluster.ID) {
		if err != nil {
			return 0, 0, err
		}
		cluster = now
	}
	down = time.Since(began)
	pods, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, 0, err
	}
	secrets, err := c.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, 0, err
	}
	if cluster.State != berth.ClusterStopped || len(pods.Items)+len(secrets.Items) > 0 {
		return 0, 0, errors.New("the cluster is " + string(cluster.State) + fmt.Sprintf(", and left %d pods and %d secrets", len(pods.Items), len(secrets.Items)))
	}
	return up, down, nil
}
