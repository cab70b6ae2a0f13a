//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
	"github.com/berth-run/berth/internal/childtest"
)

// The server is killed, by SIGKILL, each time that it has submitted calls of an
// example or has kept what came of some: the result is the same, and by the
// cluster there was one pod for each call.
func TestExamplesOfWorkflowsWhoseServerIsKilledAtEachStep(t *testing.T) {
	t.Parallel()
	o := handing(t, "mount_dfs: pvc:shared\n", "mount_dfs: pvc:shared\n", "data")
	o.build("text")
	pods := o.countPods()
	for _, infrastructure := range []string{"site-a", "site-b"} {
		o.must("run", "--on", infrastructure, busybox, "sh", "-c", "mkdir /data/texts && echo one two two > /data/texts/a.txt")
	}
	for _, of := range []struct {
		example string
		args    []string
		calls   int
		want    string
	}{
		{"failing.star", nil, 3, `{"missing":["east"],"sum":42}`},
		{"sweep.star", []string{"width=2", "height=4"}, 8, `{"score":36,"x":1,"y":3}`},
		{"twosites.star", nil, 2, `{"sites":{"site-a":3,"site-b":3},"total":6}`},
		{"wordcount.star", []string{"words=to be or not to be", "parts=2", "least=2"}, 4, `{"counts":[{"n":2,"word":"be"},{"n":2,"word":"to"}],"total":4}`},
		{"wordfiles.star", []string{"file=/data/texts/a.txt", "parts=2", "here=site-a", "there=site-b"}, 4, `{"counts":[{"n":2,"word":"two"},{"n":1,"word":"one"}],"total":3}`},
	} {
		run, kills := o.killed(append([]string{example(t, of.example)}, of.args...)...)
		if run.State != berth.RunSucceeded || string(run.Result) != of.want {
			t.Errorf("%s: %s, %s, %+v", of.example, run.State, run.Result, run.Error)
		}
		calls := 0
		for task, made := range pods() {
			if o.task(task).Spec.Labels[berth.LabelRun] != run.ID {
				continue
			}
			if calls++; made != 1 {
				t.Errorf("%s: %d pods of task %s", of.example, made, task)
			}
		}
		if calls != of.calls {
			t.Errorf("%s: %d tasks that had a pod, want %d", of.example, calls, of.calls)
		}
		if kills < 3 {
			t.Errorf("%s: only %d servers were killed", of.example, kills)
		}
		t.Logf("%s: %d servers were killed", of.example, kills)
	}
}

// countPods counts the pods that the cluster has had since for each task, in the
// namespaces of the infrastructures.
func (o *office) countPods() func() map[string]int {
	t := o.t
	t.Helper()
	var mu sync.Mutex
	seen := map[types.UID]string{}
	var infrastructures []berth.Infrastructure
	if err := json.Unmarshal([]byte(o.must("infra", "list", "-o", "json")), &infrastructures); err != nil {
		t.Fatal(err)
	}
	for _, infrastructure := range infrastructures {
		watcher, err := admin.CoreV1().Pods(infrastructure.Namespace).Watch(background, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(watcher.Stop)
		go func() {
			for event := range watcher.ResultChan() {
				if pod, ok := event.Object.(*corev1.Pod); ok && event.Type == watch.Added {
					mu.Lock()
					seen[pod.UID] = pod.Labels[berth.LabelTask]
					mu.Unlock()
				}
			}
		}()
	}
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		pods := map[string]int{}
		for _, task := range seen {
			pods[task]++
		}
		return pods
	}
}

// killed starts a run and has servers go on with it, of which each kills itself
// once it has submitted something, or kept a result. It returns the run as it
// has ended, and how many servers were killed.
func (o *office) killed(args ...string) (run berth.Run, kills int) {
	t := o.t
	t.Helper()
	token := strings.TrimSpace(o.must("server", "token", "create", "kills", "--role", "admin"))
	id := strings.TrimSpace(o.must(append([]string{"workflow", "run", "--detach"}, args...)...))
	o.stop(syscall.SIGKILL)
	defer o.start() // for the next
	service, err := client.Dial("https://"+o.address, token, client.WithCAFile(filepath.Join(o.dir, ".berth", "ca.pem")))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	binary, err := filepath.Abs("../../bin/berth-crash")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil && (run.ID == "" || !run.State.Terminal()) {
			for now, err := range service.WatchRun(ctx, id) {
				if err == nil {
					run = now
				}
			}
		}
	}()
	for ; ; kills++ {
		point := "runs.submitted"
		if kills%2 == 1 { // from what it keeps as it begins to what comes of a call
			point = fmt.Sprintf("runs.kept:%d", 1+kills/2%6)
		}
		server := o.command([]string{"BERTH_CRASH=" + point}, "server", "--listen", o.address)
		server.Path, server.Stderr = binary, o.log
		ended, err := childtest.Start(server, syscall.SIGKILL)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-over:
			_ = server.Process.Signal(syscall.SIGTERM)
			<-ended
			return run, kills
		}
	}
}
