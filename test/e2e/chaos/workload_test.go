//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// kind is what a task's program does, and how it has to end.
type kind struct {
	name    string
	script  string
	prints  string
	code    int
	change  func(*berth.TaskSpec)
	cancel  bool // it is cancelled once it runs
	repeats bool // it may run more often than once
}

var (
	plain    = kind{name: "plain", script: "echo begun; sleep 0.2; echo ended", prints: "begun\nended\n"}
	failing  = kind{name: "failing", script: "echo fails; exit 3", prints: "fails\n", code: 3}
	retried  = kind{name: "retried", script: `echo tries; [ $attempt -ge 2 ]`, prints: "tries\n", change: func(s *berth.TaskSpec) { s.Retries = 3 }, repeats: true}
	again    = kind{name: "idempotent", script: "echo begun; sleep 1; echo ended", prints: "begun\nended\n", change: func(s *berth.TaskSpec) { s.Idempotent = true }, repeats: true}
	long     = kind{name: "long", script: "i=0; while [ $i -lt 15 ]; do echo $i; sleep 1; i=$((i+1)); done", prints: "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n"}
	loud     = kind{name: "loud", script: "i=0; while [ $i -lt 5500 ]; do echo $i $" + "LINE; i=$((i+1)); done", change: func(s *berth.TaskSpec) { s.Env = append(s.Env, berth.EnvVar{Name: "LINE", Value: loudLine}) }}
	canceled = kind{name: "cancelled", script: "echo begun; sleep 600", cancel: true}
)

// loudLine makes a log long enough to be sealed in parts.
var loudLine = strings.Repeat("0123456789", 90)

func init() {
	var b strings.Builder
	for i := range 5500 {
		fmt.Fprintf(&b, "%d %s\n", i, loudLine)
	}
	loud.prints = b.String()
}

// order is a task that is submitted, and what its submitter was told of it.
type order struct {
	kind
	token string
	plane *plane
	id    string
	told  berth.Task // when it had ended
}

// workload is the tasks of a test, and what is known of them beside Berth.
type workload struct {
	t      *testing.T
	ledger *ledger
	ended  atomic.Int64

	mu      sync.Mutex
	orders  []*order
	deleted map[string]bool // tasks, a pod of which was deleted by hand

	interrupted bool // kubelets are stopped, maybe while they start a container
}

func newWorkload(t *testing.T) *workload {
	t.Helper()
	return &workload{t: t, ledger: newLedger(t), deleted: map[string]bool{}}
}

// drive submits a task and waits until it has ended, as a client does that
// tries again what failed because something was away.
func (w *workload) drive(ctx context.Context, p *plane, k kind) {
	w.mu.Lock()
	o := &order{kind: k, token: fmt.Sprintf("%s-%d", k.name, len(w.orders)), plane: p}
	w.orders = append(w.orders, o)
	w.mu.Unlock()
	defer w.ended.Add(1)
	spec := berth.TaskSpec{Image: busybox, Args: w.ledger.program(o.token, k.script), Labels: map[string]string{"kind": k.name}}
	if k.change != nil {
		k.change(&spec)
	}
	task, err := persist(ctx, w, "submitting "+o.token, func() (berth.Task, error) {
		return p.service.SubmitTask(ctx, berth.Submission{Key: o.token, Spec: spec})
	})
	if err != nil {
		w.t.Errorf("%s could not be submitted: %v", o.token, err)
		return
	}
	o.id = task.ID
	if k.cancel {
		w.cancel(ctx, o)
	}
	_, err = persist(ctx, w, "waiting for "+o.token, func() (berth.Task, error) {
		for task, err := range p.service.WatchTask(ctx, o.id) {
			if err != nil {
				return task, err
			}
			o.told = task
		}
		return o.told, nil
	})
	if err != nil {
		w.t.Errorf("waiting for %s, which is %s: %v", o.token, o.told.State, err)
	}
}

func (w *workload) cancel(ctx context.Context, o *order) {
	_, err := persist(ctx, w, "waiting for the start of "+o.token, func() (berth.Task, error) {
		for task, err := range o.plane.service.WatchTask(ctx, o.id) {
			if err != nil || task.State != berth.StateQueued && task.State != berth.StateLaunching {
				return task, err
			}
		}
		return berth.Task{}, nil
	})
	if err == nil {
		_, err = persist(ctx, w, "cancelling "+o.token, func() (berth.Task, error) { return o.plane.service.CancelTask(ctx, o.id) })
	}
	if err != nil {
		w.t.Errorf("cancelling %s: %v", o.token, err)
	}
}

// persist tries again what failed because something was away, or full: only
// that may be an answer while things are broken.
func persist[T any](ctx context.Context, w *workload, what string, call func() (T, error)) (T, error) {
	for {
		value, err := call()
		if err == nil || ctx.Err() != nil {
			return value, errors.Join(err, ctx.Err())
		}
		if code := berth.CodeOf(err); code != berth.CodeUnavailable && code != berth.CodeExhausted {
			w.t.Errorf("%s was refused as %s: %v", what, code, err)
			return value, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// all drives tasks of these kinds at once, to their ends.
func (w *workload) all(p *plane, limit time.Duration, kinds ...kind) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	var driving sync.WaitGroup
	for _, k := range kinds {
		driving.Go(func() { w.drive(ctx, p, k) })
	}
	driving.Wait()
}

// verdict counts what the ledger and the stores say.
type verdict struct {
	tasks, began, finished                                                  int // tasks, and runs by the ledger
	succeeded, failed, cancelled, lost, deleted, repeated, gap, interrupted int
}

func (v verdict) String() string {
	return fmt.Sprintf("%d tasks; by the ledger %d runs began and %d ended by themselves; %d succeeded, %d failed, %d cancelled, %d lost; "+
		"pods of %d deleted by hand; %d ran again as they said they may; %d failed as the kubelet was stopped while it started them; %d logs with a gap that is told",
		v.tasks, v.began, v.finished, v.succeeded, v.failed, v.cancelled, v.lost, v.deleted, v.repeated, v.interrupted, v.gap)
}

// judge compares what Berth says with what the ledger has.
func (w *workload) judge() verdict {
	w.t.Helper()
	v := verdict{tasks: len(w.orders), deleted: len(w.deleted)}
	v.began, v.finished = w.ledger.counts()
	known := map[string]bool{}
	for _, o := range w.orders {
		known[o.token] = true
		if o.id != "" { // what wasn't submitted is an error already
			w.judgeTask(o, &v)
		}
	}
	for _, token := range w.ledger.tokens() {
		if !known[token] {
			w.t.Errorf("%s ran, and nobody submitted it", token)
		}
	}
	w.nothingIsLeft()
	return v
}

func (w *workload) judgeTask(o *order, v *verdict) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	name := o.token + " (" + o.id + ")"
	task, err := o.plane.service.Task(ctx, o.id)
	if err != nil {
		w.t.Errorf("%s: the store does not have it: %v", name, err)
		return
	}
	if task.State != o.told.State {
		w.t.Errorf("%s: who waited was told %s, and it is %s", name, o.told.State, task.State)
	}
	byHand := w.deleted[o.id]
	runs := w.ledger.of(o.token)
	pods := map[string]int{}
	for _, r := range runs {
		pods[r.pod]++
	}
	for pod, n := range pods {
		if n > 1 || !strings.HasPrefix(pod, "berth-"+o.id+"-") {
			w.t.Errorf("%s: pod %s ran %d times", name, pod, n)
		}
	}
	switch {
	case len(runs) > 1 && !o.repeats:
		w.t.Errorf("%s ran %d times: %+v", name, len(runs), runs)
	case len(runs) > 1:
		v.repeated++
	}
	last := func(code string) bool {
		return task.Pod != nil && slices.ContainsFunc(runs, func(r run) bool { return r.pod == *task.Pod && r.ended && r.code == code })
	}
	why := fmt.Sprintf("%s is %s, %+v; by the ledger %+v", name, task.State, task.Diagnosis, runs)
	switch task.State {
	case berth.StateSucceeded:
		v.succeeded++
		if !last("0") || o.code != 0 || o.cancel {
			w.t.Error(why)
		}
	case berth.StateFailed:
		v.failed++
		if !byHand && w.interrupted && task.Diagnosis != nil && task.Diagnosis.Cause == berth.CauseSandboxFailed && !slices.ContainsFunc(runs, func(r run) bool { return r.ended && r.pod == *task.Pod }) {
			v.interrupted++
			byHand = true
			w.t.Logf("a kubelet was stopped while it started %s", why)
		}
		if !byHand && (o.code == 0 || !last(fmt.Sprint(o.code))) {
			w.t.Error(why)
		}
	case berth.StateCancelled:
		v.cancelled++
		if !o.cancel {
			w.t.Error(why)
		}
	case berth.StateLost:
		v.lost++
		if !byHand {
			w.t.Errorf("nobody deleted a pod of it: %s", why)
		}
	default:
		w.t.Errorf("it has not ended: %s", why)
	}
	w.judgeEvents(ctx, o)
	if !byHand && task.State != berth.StateCancelled {
		w.judgeLog(ctx, o, v)
	}
}

// judgeEvents: a task ends once.
func (w *workload) judgeEvents(ctx context.Context, o *order) {
	w.t.Helper()
	var ends []berth.EventType
	for event, err := range o.plane.service.TaskEvents(ctx, o.id, 0, false) {
		if err != nil {
			w.t.Errorf("%s: its events: %v", o.token, err)
			return
		}
		switch event.Type {
		case berth.EventFinished, berth.EventFailed, berth.EventStopped, berth.EventLost:
			ends = append(ends, event.Type)
		}
	}
	if len(ends) != 1 {
		w.t.Errorf("%s ended so often: %v", o.token, ends)
	}
}

// judgeLog: all that was printed is there, or it says that something is missing.
func (w *workload) judgeLog(ctx context.Context, o *order, v *verdict) {
	w.t.Helper()
	var text strings.Builder
	gaps := 0
	for chunk, err := range o.plane.service.TaskLogs(ctx, o.id, berth.LogQuery{Follow: true}) {
		if err != nil {
			w.t.Errorf("%s: its log: %v", o.token, err)
			return
		}
		text.Write(chunk.Data)
		if chunk.Gap != "" {
			gaps++
		}
	}
	if gaps > 0 {
		v.gap++
	} else if got := text.String(); got != o.prints {
		w.t.Errorf("%s (%s) printed %d bytes, and its log has %d, and no gap: %.200q", o.token, o.id, len(o.prints), len(got), got)
	}
}

// nothingIsLeft waits until all pods are deleted.
func (w *workload) nothingIsLeft() {
	w.t.Helper()
	of := map[*plane]bool{}
	for _, o := range w.orders {
		of[o.plane] = true
	}
	for p := range of {
		var left []string
		deadline := time.Now().Add(90 * time.Second)
		for {
			pods, err := p.namespace.pods(p.instance())
			left = nil
			for i := range pods {
				left = append(left, pods[i].Name)
			}
			if err == nil && len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				w.t.Errorf("pods are left: %v %v", left, err)
				break
			}
			<-time.After(200 * time.Millisecond)
		}
	}
}
