//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// lockedBuffer is written by a process while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// podLedger counts the pods that ever existed in a namespace, by their UIDs: it
// is told by the API server, not by Berth.
type podLedger struct {
	mu   sync.Mutex
	uids map[string]map[string]bool // by task
}

func (s *site) watchPods() *podLedger {
	s.t.Helper()
	ledger := &podLedger{uids: map[string]map[string]bool{}}
	pods := admin.CoreV1().Pods(s.namespace)
	list, err := pods.List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range list.Items {
		ledger.add(&list.Items[i])
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	// An API server that has a lot to do ends watches: each goes on where the
	// one before was.
	go func() {
		for version := list.ResourceVersion; ctx.Err() == nil; <-time.After(50 * time.Millisecond) {
			watcher, err := pods.Watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true})
			if err != nil {
				continue
			}
			for event := range watcher.ResultChan() {
				if pod, ok := event.Object.(*corev1.Pod); ok {
					version = pod.ResourceVersion
					ledger.add(pod)
				}
			}
		}
	}()
	return ledger
}

func (l *podLedger) add(pod *corev1.Pod) {
	if pod.UID == "" {
		return // a bookmark
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	task := pod.Labels[berth.LabelTask]
	if l.uids[task] == nil {
		l.uids[task] = map[string]bool{}
	}
	l.uids[task][string(pod.UID)] = true
}

func (l *podLedger) count(task string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.uids[task])
}

// TestKilledAtAnyMoment kills berth run at many moments of a task's life; what
// is found afterwards is one pod and one outcome, or no task at all.
func TestKilledAtAnyMoment(t *testing.T) {
	s := newSite(t)
	ledger := s.watchPods()
	s.must("run", busybox, "true") // the data directory is there, the image known
	killed := 0
	for i := range 24 {
		before := map[string]bool{}
		for _, task := range s.tasks() {
			before[task.ID] = true
		}
		cmd := s.command(nil, "run", busybox, "sh", "-c", "echo ran; sleep 0.3; exit 7")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration(i) * 25 * time.Millisecond
		if i >= 16 {
			moment = time.Duration(i-10) * 200 * time.Millisecond
		}
		timer := time.AfterFunc(moment, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		timer.Stop()
		if cmd.ProcessState.ExitCode() == -1 {
			killed++
		}
		for _, task := range s.tasks() {
			if before[task.ID] {
				continue
			}
			r := s.berth("task", "wait", task.ID)
			if r.code != 7 {
				t.Errorf("killed after %s: wait ended with %d\n%s", moment, r.code, r.stderr)
			}
			if got := s.must("task", "logs", task.ID); got != "ran\n" {
				t.Errorf("killed after %s: the log is %q", moment, got)
			}
			if n := ledger.count(task.ID); n != 1 {
				t.Errorf("killed after %s: %d pods existed", moment, n)
			}
			ends := 0
			for _, event := range s.events(task.ID) {
				switch event {
				case berth.EventFinished, berth.EventFailed, berth.EventStopped, berth.EventLost:
					ends++
				}
			}
			if ends != 1 {
				t.Errorf("killed after %s: it ended %d times", moment, ends)
			}
		}
	}
	if killed < 12 {
		t.Errorf("only %d of 24 were killed before they ended: the moments are too late", killed)
	}
}

func TestAGuestTakesOverWhenTheHostDies(t *testing.T) {
	s := newSite(t)
	host := s.command(nil, "run", busybox, "sh", "-c", "sleep 600")
	var hostOut lockedBuffer
	host.Stderr = &hostOut
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the host's task runs", 60*time.Second, func() bool { return strings.Contains(hostOut.String(), "running") })
	const guests = 5
	results := make(chan result, guests)
	for i := range guests {
		go func() {
			results <- s.berth("run", busybox, "sh", "-c", fmt.Sprintf("echo begun; sleep 3; echo guest %d; exit %d", i, i))
		}()
	}
	waitFor(t, "the guests' tasks run", 60*time.Second, func() bool {
		return strings.Count(s.must("task", "list", "--state", "running"), "\n") == guests+2
	})
	if err := host.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	codes := map[int]bool{}
	for range guests {
		r := <-results
		codes[r.code] = true
		if want := fmt.Sprintf("begun\nguest %d\n", r.code); r.stdout != want {
			t.Errorf("a guest printed %q, want %q\n%s", r.stdout, want, r.stderr)
		}
	}
	if len(codes) != guests {
		t.Errorf("exit codes %v", codes)
	}
	for _, task := range s.tasks() {
		if task.State == berth.StateRunning {
			s.must("task", "cancel", task.ID)
		}
	}
}

func TestThreeHundredDetachedTasksAllEndOnce(t *testing.T) {
	const count = 300
	s := newSite(t)
	ledger := s.watchPods()
	ids := map[string]bool{}
	for i := range count {
		ids[s.detach(busybox, "sh", "-c", fmt.Sprintf("exit %d", i%3))] = true
	}
	if len(ids) != count {
		t.Fatalf("%d ids for %d tasks", len(ids), count)
	}
	for id := range ids {
		s.berth("task", "wait", id)
	}
	byCode := map[int]int{}
	for _, task := range s.tasks() {
		if !ids[task.ID] || !task.State.Terminal() || task.ExitCode == nil {
			t.Fatalf("task %s is %s", task.ID, task.State)
		}
		byCode[*task.ExitCode]++
		if n := ledger.count(task.ID); n != 1 {
			t.Errorf("task %s had %d pods", task.ID, n)
		}
	}
	if byCode[0] != 100 || byCode[1] != 100 || byCode[2] != 100 {
		t.Errorf("exit codes: %v", byCode)
	}
}

func TestAHundredProcessesShareADataDirectory(t *testing.T) {
	const count = 100
	s := newSite(t)
	ledger := s.watchPods()
	results := make(chan result, count)
	for i := range count {
		go func() {
			results <- s.berth("run", busybox, "sh", "-c", fmt.Sprintf("echo task %d; exit %d", i, i))
		}()
	}
	codes := map[int]int{}
	for range count {
		r := <-results
		codes[r.code]++
		if want := fmt.Sprintf("task %d\n", r.code); r.stdout != want {
			t.Errorf("exit %d with output %q\n%s", r.code, r.stdout, r.stderr)
		}
	}
	for i := range count {
		if codes[i] != 1 {
			t.Errorf("exit code %d came %d times", i, codes[i])
		}
	}
	for _, task := range s.tasks() {
		waitFor(t, "the pod of task "+task.ID+" is counted", 20*time.Second, func() bool { return ledger.count(task.ID) > 0 })
		if n := ledger.count(task.ID); n != 1 {
			t.Errorf("task %s had %d pods", task.ID, n)
		}
	}
}

func TestAPodDeletedByAnotherHandIsLost(t *testing.T) {
	s := newSite(t)
	id := s.detach(busybox, "sleep", "600")
	waitFor(t, "it runs", 60*time.Second, func() bool { return s.task(id).State == berth.StateRunning })
	zero := int64(0)
	task := s.task(id)
	if err := admin.CoreV1().Pods(s.namespace).Delete(t.Context(), *task.Pod, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	r := s.berth("task", "wait", id)
	if task = s.task(id); task.State != berth.StateLost || task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseDeletedExternally || r.code != berth.ExitNone {
		t.Errorf("exit %d, task %s, %+v\n%s", r.code, task.State, task.Diagnosis, r.stderr)
	}
}
