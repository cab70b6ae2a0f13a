package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

// inFlight is how many creates, and how many deletes, a loop has under way.
const inFlight = 32

// lookEvery is between two looks at whether all is done.
const lookEvery = 50 * time.Millisecond

// throughput compares full lives of tasks a second: created, ended, its log
// kept, deleted, against pods that are created, watched and deleted; and
// against those whose logs are read as well.
func throughput(ctx context.Context, kubeconfig, only string, tasks, rounds int) error {
	_, c, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	const namespace = "bench"
	_, _ = c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err := ready(ctx, c, namespace); err != nil {
		return err
	}
	var bare, full, ratios, reading []float64
	if only != "" { // for profiles of one side
		for range rounds {
			var rate float64
			var err error
			switch only {
			case "bare", "reading":
				rate, err = bareLoop(ctx, c, namespace, tasks, only == "reading")
			default:
				rate, err = berthLoop(ctx, kubeconfig, namespace, tasks)
			}
			if err != nil {
				return err
			}
			fmt.Printf("%s %.1f/s\n", only, rate)
		}
		return nil
	}
	for round := range rounds + 1 {
		b, err := bareLoop(ctx, c, namespace, tasks, false)
		if err != nil {
			return err
		}
		f, err := berthLoop(ctx, kubeconfig, namespace, tasks)
		if err != nil {
			return err
		}
		r, err := bareLoop(ctx, c, namespace, tasks, true)
		if err != nil {
			return err
		}
		if round == 0 {
			fmt.Printf("warm-up: bare %.1f/s, berth %.1f/s, bare and reading logs %.1f/s\n", b, f, r)
			continue
		}
		fmt.Printf("round %d: bare %.1f/s, berth %.1f/s, ratio %.2f; bare and reading logs %.1f/s, ratio %.2f\n", round, b, f, f/b, r, f/r)
		bare, full, ratios, reading = append(bare, b), append(full, f), append(ratios, f/b), append(reading, f/r)
	}
	fmt.Printf("%d tasks a round, medians: bare client-go loop %.1f/s, berth %.1f/s\n", tasks, median(bare), median(full))
	fmt.Printf("throughput ratio: %.2f; to a loop that reads each pod's log as well: %.2f\n", median(ratios), median(reading))
	return nil
}

// bareLoop makes pods, watches them end and deletes them, having read their logs
// or not.
func bareLoop(ctx context.Context, c *kubernetes.Clientset, namespace string, count int, reads bool) (float64, error) {
	pods := c.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "bench=bare", Limit: 1})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := podEvents(ctx, c, namespace, "bench=bare", list.ResourceVersion)
	began := time.Now()
	var creates, deletes sync.WaitGroup
	failed := make(chan error, count*2)
	work := make(chan int)
	for range inFlight {
		creates.Add(1)
		go func() {
			defer creates.Done()
			for i := range work {
				pod := &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bare-%d-%d", began.UnixNano(), i), Labels: map[string]string{"bench": "bare"}},
					Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: image, Args: []string{"true"}}}},
				}
				if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
					failed <- err
				}
			}
		}()
	}
	go func() {
		for i := range count {
			work <- i
		}
		close(work)
	}()
	slots := make(chan struct{}, inFlight)
	deleted := map[string]bool{}
	for gone := 0; gone < count; {
		select {
		case err := <-failed:
			return 0, err
		case event := <-events:
			pod := event.pod
			switch {
			case event.err != nil:
				return 0, event.err
			case event.kind == watch.Deleted:
				gone++
			case pod.Status.Phase == corev1.PodSucceeded && !deleted[pod.Name]:
				deleted[pod.Name] = true
				name := pod.Name
				deletes.Add(1)
				go func() {
					defer deletes.Done()
					slots <- struct{}{}
					defer func() { <-slots }()
					if reads {
						if _, err := pods.GetLogs(name, &corev1.PodLogOptions{Timestamps: true}).DoRaw(ctx); err != nil {
							failed <- err
							return
						}
					}
					if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
						failed <- err
					}
				}()
			}
		}
	}
	rate := float64(count) / time.Since(began).Seconds()
	creates.Wait()
	deletes.Wait()
	return rate, nil
}

// berthLoop submits tasks through the public API and waits until all of them
// have ended and none of their pods is left.
func berthLoop(ctx context.Context, kubeconfig, namespace string, count int) (float64, error) {
	service, closeService, err := openService(ctx, kubeconfig, namespace, count)
	if err != nil {
		return 0, err
	}
	defer closeService()
	_, c, err := connect(kubeconfig)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	failed := make(chan error, count)
	slots := make(chan struct{}, 4*inFlight)
	go func() {
		for range count {
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				_, err := service.SubmitTask(ctx, berth.Submission{Spec: berth.TaskSpec{Image: image, Args: []string{"true"}}})
				failed <- err
			}()
		}
	}()
	for range count {
		if err := <-failed; err != nil {
			return 0, err
		}
	}
	// Looked at from outside by a call now and then: a watch of its own would
	// make the API server send everything twice, which the bare loop doesn't.
	for {
		page, err := service.Tasks(ctx, berth.TaskQuery{States: []berth.TaskState{berth.StateQueued, berth.StateLaunching, berth.StateRunning}, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(page.Tasks) == 0 {
			break
		}
		time.Sleep(lookEvery)
	}
	for {
		list, err := c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: berth.LabelManagedBy + "=" + berth.LabelManagedByValue, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(list.Items) == 0 {
			break
		}
		time.Sleep(lookEvery)
	}
	rate := float64(count) / time.Since(began).Seconds()
	page, err := service.Tasks(ctx, berth.TaskQuery{States: []berth.TaskState{berth.StateSucceeded}, Limit: count})
	if err == nil && len(page.Tasks) != count {
		err = fmt.Errorf("only %d of %d tasks succeeded", len(page.Tasks), count)
	}
	return rate, err
}

// openService opens Berth on a new data directory, connected as the bare loop is.
func openService(ctx context.Context, kubeconfig, namespace string, maxPods int) (_ berth.Service, closed func(), err error) {
	dir, err := os.MkdirTemp("", "berth-bench")
	if err != nil {
		return nil, nil, err
	}
	// A copy: Berth watches the folder of a kubeconfig for changes, and the
	// API server writes its audit log to the folder of this one.
	content, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	absolute := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(absolute, content, 0o600); err != nil {
		return nil, nil, err
	}
	infra := filepath.Join(dir, "infra.yml")
	text := fmt.Sprintf("infrastructures:\n  bench:\n    kind: kube\n    namespace: %s\n    credentials: {mechanism: config, path: %s}\n    limits: {max_pods: %d}\n", namespace, absolute, maxPods)
	if err := os.WriteFile(infra, []byte(text), 0o600); err != nil {
		return nil, nil, err
	}
	service, err := client.Open(ctx, client.Config{Infra: infra, Data: filepath.Join(dir, "data")})
	if err != nil {
		return nil, nil, err
	}
	if _, err := service.Infrastructures(ctx); err != nil { // connected, as the bare loop is
		return nil, nil, err
	}
	return service, func() {
		service.Close()
		os.RemoveAll(dir)
	}, nil
}

type podEvent struct {
	kind watch.EventType
	pod  *corev1.Pod
	err  error
}

// podEvents watches pods from a version on. The API server closes a watch that
// it finds slow, as on a machine whose processors are busy; it is taken up
// again where it was.
func podEvents(ctx context.Context, c *kubernetes.Clientset, namespace, selector, version string) <-chan podEvent {
	out := make(chan podEvent, 1000)
	go func() {
		for ctx.Err() == nil {
			watcher, err := c.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{LabelSelector: selector, ResourceVersion: version})
			if err != nil {
				out <- podEvent{err: err}
				return
			}
			for event := range watcher.ResultChan() {
				pod, ok := event.Object.(*corev1.Pod)
				if !ok {
					out <- podEvent{err: fmt.Errorf("the watch gave %v", event.Object)}
					return
				}
				version = pod.ResourceVersion
				out <- podEvent{kind: event.Type, pod: pod}
			}
		}
	}()
	return out
}
