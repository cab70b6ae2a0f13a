//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
)

// soon is how long after the cluster showed it Berth may show a cause.
const soon = 2 * time.Second

// witness watches the site's pods and their events as an administrator, so that
// the test knows when the cluster showed a cause, whatever Berth says.
type witness struct {
	s      *site
	mu     sync.Mutex
	pods   map[types.UID]*corev1.Pod
	events map[types.UID][]corev1.Event
	shown  map[string]map[berth.Cause]*sight // by task
}

// sight is a cause as the cluster showed it.
type sight struct {
	pod         *corev1.Pod
	events      []corev1.Event
	first, last time.Time // zero: it is what the cluster shows now
}

// record watches the site, and compares at the end of the test when the cluster
// showed each cause with when Berth did: a test that does runs beside no others.
// Where BERTH_E2E_RECORD names a folder it also keeps what was shown as fixtures
// for internal/diagnosis.
func (s *site) record() {
	s.t.Helper()
	w := &witness{s: s, pods: map[types.UID]*corev1.Pod{}, events: map[types.UID][]corev1.Event{}, shown: map[string]map[berth.Cause]*sight{}}
	pods, err := admin.CoreV1().Pods(s.namespace).Watch(background, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	events, err := admin.CoreV1().Events(s.namespace).Watch(background, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for event := range pods.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok && event.Type != watch.Deleted {
				w.seePod(pod)
			}
		}
	}()
	go func() {
		for event := range events.ResultChan() {
			if e, ok := event.Object.(*corev1.Event); ok && event.Type != watch.Deleted {
				w.seeEvent(e)
			}
		}
	}()
	s.t.Cleanup(func() {
		pods.Stop()
		events.Stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, task := range s.tasks() {
			w.compare(task)
			s.keep(task, w.shown[task.ID])
		}
	})
}

func (w *witness) seePod(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[pod.UID] = pod
	w.look(pod)
}

func (w *witness) seeEvent(e *corev1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	uid := e.InvolvedObject.UID
	kept := slices.DeleteFunc(slices.Clone(w.events[uid]), func(old corev1.Event) bool { return old.UID == e.UID })
	w.events[uid] = append(kept, *e)
	if pod := w.pods[uid]; pod != nil {
		w.look(pod)
	}
}

// look takes note of what the cluster shows now.
func (w *witness) look(pod *corev1.Pod) {
	now, task := time.Now(), pod.Labels[berth.LabelTask]
	finding := diagnosis.Pod(pod, "main", w.events[pod.UID], true, diagnosis.Subject{}, now)
	if w.shown[task] == nil {
		w.shown[task] = map[berth.Cause]*sight{}
	}
	for cause, seen := range w.shown[task] {
		if seen.last.IsZero() && (finding == nil || finding.Cause != cause) {
			seen.last = now
		}
	}
	if finding == nil {
		return
	}
	seen := w.shown[task][finding.Cause]
	if seen == nil {
		seen = &sight{first: now}
		w.shown[task][finding.Cause] = seen
	}
	seen.pod, seen.events, seen.last = pod, w.events[pod.UID], time.Time{}
}

// compare asserts that a task showed each cause soon after the cluster did,
// unless it passed before.
func (w *witness) compare(task berth.Task) {
	t := w.s.t
	t.Helper()
	var events []berth.Event
	if err := json.Unmarshal([]byte(w.s.must("task", "events", task.ID, "-o", "json")), &events); err != nil {
		t.Fatal(err)
	}
	for cause, seen := range w.shown[task.ID] {
		if cause == berth.CauseUnknown || task.State == berth.StateSucceeded || task.State == berth.StateCancelled {
			continue // what is only quiet is not shown at a certain moment
		}
		own := task.Diagnosis != nil && task.Diagnosis.Cause == cause
		if !own && task.FinishedAt != nil && seen.first.After(*task.FinishedAt) {
			delete(w.shown[task.ID], cause) // of the pod's own deletion
			continue
		}
		i := slices.IndexFunc(events, func(e berth.Event) bool { return strings.HasPrefix(e.Message, string(cause)+": ") })
		switch {
		case i >= 0:
			delay := events[i].At.Sub(seen.first)
			shownAfter(string(cause), delay)
			if delay > soon {
				t.Errorf("%s: Berth showed it %s after the cluster", cause, delay.Round(time.Millisecond))
			}
		case seen.last.IsZero() && time.Since(seen.first) > soon || seen.last.Sub(seen.first) > soon:
			t.Errorf("%s: the cluster showed it from %s on, and Berth never did: %+v", cause, seen.first.Format(time.TimeOnly), events)
		}
	}
}
