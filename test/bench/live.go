package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/berth-run/berth"
)

const (
	liveInfrastructures = 5
	memoryLimit         = 20.0 // KiB a live task
	endLimit            = 100 * time.Millisecond
	restartLimit        = 5 * time.Second
)

// live measures a server with many live tasks over several infrastructures:
// its memory for each, how soon after a pod's end a wait returns, and how it
// takes up its work after it was killed.
func live(ctx context.Context, kubeconfig, binary string, tasks, waits int) error {
	_, c, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	l := &liveTasks{c: c, audit: filepath.Join(filepath.Dir(kubeconfig), "audit.log"), tasks: tasks / liveInfrastructures * liveInfrastructures, pods: map[string]berth.Task{}}
	infra := ""
	for i := range liveInfrastructures {
		// So localkube knows that their containers go on.
		namespace := fmt.Sprintf("stay-%d-%d", time.Now().Unix(), i)
		if _, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := ready(ctx, c, namespace); err != nil {
			return err
		}
		l.namespaces = append(l.namespaces, namespace)
		infra += fmt.Sprintf("  live-%d:\n    kind: kube\n    namespace: %s\n    credentials: {mechanism: config, path: ./kubeconfig}\n    limits: {max_pods: %d}\n    pod: {labels: {localkube/stay: \"true\"}}\n", i, namespace, tasks)
	}
	if l.server, err = newServer(binary, kubeconfig, "infrastructures:\n"+infra); err != nil {
		return err
	}
	defer l.server.close()
	for _, step := range []func(context.Context) error{
		l.fill, func(ctx context.Context) error { return l.ends(ctx, waits) }, l.restart,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// liveTasks are tasks that run until their pods are said to have ended.
type liveTasks struct {
	c          *kubernetes.Clientset
	server     *server
	namespaces []string // of live-0, live-1, ...
	audit      string
	tasks      int

	mu   sync.Mutex
	pods map[string]berth.Task // by pod, those that run
}

// fill submits tasks, waits until all run, and tells what they need.
func (l *liveTasks) fill(ctx context.Context) error {
	if _, err := l.server.service.Infrastructures(ctx); err != nil {
		return err
	}
	before, err := l.server.memory(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	indices := make([]int, l.tasks/liveInfrastructures)
	for i := range indices {
		indices[i] = i
	}
	for i := range liveInfrastructures {
		if _, err := l.server.service.SubmitArray(ctx, berth.ArraySubmission{Indices: indices, Spec: berth.TaskSpec{Infrastructure: fmt.Sprintf("live-%d", i), Image: image, Args: []string{"sleep", "infinity"}}}); err != nil {
			return err
		}
	}
	for l.running(ctx) < l.tasks {
		if time.Since(began) > 30*time.Minute {
			return fmt.Errorf("only %d of %d tasks run", len(l.pods), l.tasks)
		}
		time.Sleep(time.Second)
	}
	fmt.Printf("%d tasks run on %d infrastructures after %s\n", l.tasks, liveInfrastructures, time.Since(began).Round(time.Second))
	time.Sleep(followedAfter) // until the logs of all are followed
	after, err := l.server.memory(ctx)
	if err != nil {
		return err
	}
	each := func(a, b float64) float64 { return (b - a) / 1024 / float64(l.tasks) }
	fmt.Printf("memory of the server: %.0f MB without tasks, %.0f MB with %d live ones, their logs followed or read in turns\n", before.resident/1e6, after.resident/1e6, l.tasks)
	fmt.Printf("memory per live task: %.1f KiB resident, %.1f KiB of heap, %.1f KiB of stacks (limit %.0f KiB)\n",
		each(before.resident, after.resident), each(before.heap, after.heap), each(before.stacks, after.stacks), memoryLimit)
	return nil
}

// followedAfter is longer than a server with this many tasks waits before it
// follows a log that nobody reads.
const followedAfter = 20 * time.Second

// running takes up which tasks run and tells how many they are.
func (l *liveTasks) running(ctx context.Context) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.pods)
	for after := ""; ; {
		page, err := l.server.service.Tasks(ctx, berth.TaskQuery{States: []berth.TaskState{berth.StateRunning}, Limit: 1000, After: after})
		if err != nil {
			return len(l.pods)
		}
		for _, t := range page.Tasks {
			l.pods[*t.Pod] = t
		}
		if after = page.Next; after == "" {
			return len(l.pods)
		}
	}
}

// end lets the container of a task end, as a kubelet would say it.
func (l *liveTasks) end(ctx context.Context, task *berth.Task) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"phase": corev1.PodSucceeded,
		"containerStatuses": []any{map[string]any{
			"name": "main", "image": image, "imageID": image, "ready": false, "restartCount": 0,
			"state": map[string]any{"running": nil, "terminated": map[string]any{"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}},
		}},
	}})
	if err != nil {
		return err
	}
	var number int
	if _, err := fmt.Sscanf(task.Infrastructure, "live-%d", &number); err != nil {
		return err
	}
	_, err = l.c.CoreV1().Pods(l.namespaces[number]).Patch(ctx, *task.Pod, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// take takes some of the tasks that run, of all infrastructures alike.
func (l *liveTasks) take(n int) []berth.Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := map[string]int{}
	var taken []berth.Task
	for pod, task := range l.pods {
		if len(taken) < n && of[task.Infrastructure] < (n+liveInfrastructures-1)/liveInfrastructures {
			of[task.Infrastructure]++
			taken = append(taken, task)
			delete(l.pods, pod)
		}
	}
	return taken
}

// waiting returns a channel that tells when a wait for a task has returned.
func (l *liveTasks) waiting(ctx context.Context, id string) <-chan time.Time {
	returned := make(chan time.Time, 1)
	began := make(chan struct{})
	go func() {
		var last berth.Task
		for task, err := range l.server.service.WatchTask(ctx, id) {
			if err != nil {
				break
			}
			if last.ID == "" {
				close(began)
			}
			last = task
		}
		if last.State == berth.StateSucceeded {
			returned <- time.Now()
		}
		close(returned)
	}()
	select {
	case <-began:
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
	return returned
}

// ends lets pods end one after the other while others wait for them, and tells
// how much later than the API server's answer a wait returns.
func (l *liveTasks) ends(ctx context.Context, n int) error {
	tasks := l.take(n)
	returned := make([]<-chan time.Time, len(tasks))
	for i := range tasks {
		returned[i] = l.waiting(ctx, tasks[i].ID)
	}
	var answered, sent []time.Duration
	for i := range tasks {
		began := time.Now()
		if err := l.end(ctx, &tasks[i]); err != nil {
			return err
		}
		stored := time.Now()
		at, ok := <-returned[i]
		if !ok {
			return fmt.Errorf("the wait for task %s ended without its end", tasks[i].ID)
		}
		answered, sent = append(answered, max(0, at.Sub(stored))), append(sent, at.Sub(began))
	}
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	fmt.Printf("from a pod's end, as the API server has stored it, to the return of a wait, %d live tasks: p50 %s, p99 %s (limit %s); from the call that ends it: p50 %s, p99 %s (%d ends)\n",
		l.tasks, round(percentile(answered, 0.5)), round(percentile(answered, 0.99)), endLimit, round(percentile(sent, 0.5)), round(percentile(sent, 0.99)), len(tasks))
	return nil
}

// restart kills the server, lets some pods end, starts it again and tells when
// it has taken in all ends, and what it wrote to the API server.
func (l *liveTasks) restart(ctx context.Context) error {
	const missed = 10 * liveInfrastructures
	if err := l.settled(ctx); err != nil {
		return err
	}
	ended := l.take(missed)
	l.server.kill()
	for i := range ended {
		if err := l.end(ctx, &ended[i]); err != nil {
			return err
		}
	}
	info, err := os.Stat(l.audit)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := l.server.start(); err != nil {
		return err
	}
	answers := time.Since(began)
	var last time.Duration
	for i := range ended {
		for task, err := range l.server.service.WatchTask(ctx, ended[i].ID) {
			if err != nil {
				return err
			}
			if task.State == berth.StateSucceeded {
				last = max(last, time.Since(began))
			}
		}
	}
	fmt.Printf("restart with %d live tasks: answers after %s, the %d ends that it missed are told after %s (limit %s)\n",
		l.running(ctx)+len(ended), answers.Round(time.Millisecond), len(ended), last.Round(time.Millisecond), restartLimit)
	if err := l.settled(ctx); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // for whatever else it might come upon
	calls, err := l.calls(info.Size())
	if err != nil {
		return err
	}
	var lines []string
	needed := 0
	for call, count := range calls {
		if call == "delete pods" {
			needed = count
			continue
		}
		lines = append(lines, fmt.Sprintf("%d %s", count, call))
	}
	slices.Sort(lines)
	fmt.Printf("API writes of the restart: %d deletes for %d ends, besides: [%s]\n", needed, len(ended), strings.Join(lines, ", "))
	return nil
}

// settled waits until nothing is left to be done for tasks that have ended.
func (l *liveTasks) settled(ctx context.Context) error {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		left := 0
		for _, namespace := range l.namespaces {
			list, err := l.c.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Succeeded", Limit: 1})
			if err != nil {
				return err
			}
			left += len(list.Items)
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pods that have ended are not deleted")
		}
	}
}

// calls counts what Berth wrote, by the audit log from an offset on. Reviews
// ask what is granted, and store nothing.
func (l *liveTasks) calls(from int64) (map[string]int, error) {
	file, err := os.Open(l.audit)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	calls := map[string]int{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Verb      string
			UserAgent string
			ObjectRef struct{ Resource, Subresource string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || !strings.HasPrefix(e.UserAgent, "berth/") || strings.HasSuffix(e.ObjectRef.Resource, "reviews") {
			continue
		}
		switch e.Verb {
		case "create", "update", "patch", "delete", "deletecollection":
			calls[strings.TrimSuffix(e.Verb+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")]++
		}
	}
	return calls, lines.Err()
}
