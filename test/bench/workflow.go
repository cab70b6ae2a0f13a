package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/berth-run/berth"
)

// links is how long a chain of calls is, each of which waits for the one before.
const links = 200

// workflows compares a workflow of many independent calls with the bare loop, and
// a chain of dependent calls with pods that are made one after the other.
func workflows(ctx context.Context, kubeconfig string, calls, rounds int) error {
	_, c, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	const namespace = "bench"
	_, _ = c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err := ready(ctx, c, namespace); err != nil {
		return err
	}
	fan := fmt.Sprintf("def main():\n    return len(run.map(image = %q, args = [[\"true\"]] * %d))\n", image, calls)
	chain := fmt.Sprintf("def main():\n    for i in range(%d):\n        run(%q, [\"true\"])\n", links, image)
	var ratios, reading, own []float64
	for round := range rounds + 1 {
		bare, err := bareLoop(ctx, c, namespace, calls, false)
		if err != nil {
			return err
		}
		took, err := workflowRun(ctx, kubeconfig, namespace, fan, calls)
		if err != nil {
			return err
		}
		reads, err := bareLoop(ctx, c, namespace, calls, true)
		if err != nil {
			return err
		}
		bareLink, err := bareChain(ctx, c, namespace)
		if err != nil {
			return err
		}
		chained, err := workflowRun(ctx, kubeconfig, namespace, chain, links)
		if err != nil {
			return err
		}
		rate, link := float64(calls)/took.Seconds(), chained.Seconds()/links*1000
		name := fmt.Sprintf("round %d", round)
		if round == 0 {
			name = "warm-up"
		} else {
			ratios, reading, own = append(ratios, rate/bare), append(reading, rate/reads), append(own, link-bareLink)
		}
		fmt.Printf("%s: bare %.1f/s, workflow %.1f/s, ratio %.2f; bare and reading logs %.1f/s, ratio %.2f; a link %.1f ms, bare %.1f ms\n", name, bare, rate, rate/bare, reads, rate/reads, link, bareLink)
	}
	fmt.Printf("workflow of %d calls, medians: ratio to the bare loop %.2f, to one that reads logs as well %.2f; chain of %d: %.1f ms a link more than bare pods\n", calls, median(ratios), median(reading), links, median(own))
	return nil
}

// workflowRun runs a program on a new data directory, and returns how long that
// took until all of its pods were gone.
func workflowRun(ctx context.Context, kubeconfig, namespace, program string, calls int) (time.Duration, error) {
	service, closeService, err := openService(ctx, kubeconfig, namespace, calls)
	if err != nil {
		return 0, err
	}
	defer closeService()
	_, c, err := connect(kubeconfig)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	run, err := service.StartRun(ctx, berth.RunSubmission{Source: berth.WorkflowSource{Main: "bench.star", Files: map[string][]byte{"bench.star": []byte(program)}}})
	if err != nil {
		return 0, err
	}
	for now, err := range service.WatchRun(ctx, run.ID) {
		if err != nil {
			return 0, err
		}
		run = now
	}
	if run.State != berth.RunSucceeded || run.Calls[berth.CallSucceeded] != calls {
		return 0, fmt.Errorf("the run %s: %w, %v", run.State, run.Error, run.Calls)
	}
	for {
		list, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: berth.LabelManagedBy + "=" + berth.LabelManagedByValue, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(list.Items) == 0 {
			return time.Since(began), nil
		}
		time.Sleep(lookEvery)
	}
}

// bareChain makes pods one after the other, each once the one before has ended
// and its log was read, and returns how many milliseconds one takes.
func bareChain(ctx context.Context, c *kubernetes.Clientset, namespace string) (float64, error) {
	pods := c.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "bench=chain", Limit: 1})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := podEvents(ctx, c, namespace, "bench=chain", list.ResourceVersion)
	began := time.Now()
	for i := range links {
		name := fmt.Sprintf("chain-%d-%d", began.UnixNano(), i)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"bench": "chain"}},
			Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: image, Args: []string{"true"}}}},
		}
		if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return 0, err
		}
		for event := range events {
			if event.err != nil {
				return 0, event.err
			}
			if event.pod.Name == name && event.pod.Status.Phase == corev1.PodSucceeded {
				break
			}
		}
		if _, err := pods.GetLogs(name, &corev1.PodLogOptions{Timestamps: true}).DoRaw(ctx); err != nil {
			return 0, err
		}
		if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds() / links * 1000, nil
}
