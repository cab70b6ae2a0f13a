package drivertest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// view is what a sink was told.
type view struct {
	pods     map[string]berth.Observation // as last seen, by name; also those that are gone
	listings int
	lost     []*engine.Refusal
}

// sink keeps what a driver sees.
type sink struct {
	mu      sync.Mutex
	view    view
	changed chan struct{} // closed and replaced at each change
}

func newSink() *sink {
	return &sink{view: view{pods: map[string]berth.Observation{}}, changed: make(chan struct{})}
}

func (s *sink) change(f func(*view)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.view)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *sink) Listed(pods []berth.Observation, _ time.Time) {
	s.change(func(v *view) {
		v.listings++
		listed := map[string]bool{}
		for _, pod := range pods {
			listed[pod.Pod] = true
			v.take(pod)
		}
		for name, pod := range v.pods {
			if !listed[name] {
				pod.Gone = true
				v.pods[name] = pod
			}
		}
	})
}

func (s *sink) Observed(pod berth.Observation) { s.change(func(v *view) { v.take(pod) }) }

func (s *sink) Lost(refusal *engine.Refusal) {
	s.change(func(v *view) { v.lost = append(v.lost, refusal) })
}

// take keeps the first outcome: what is seen of a pod later says no more.
func (v *view) take(pod berth.Observation) {
	if was := v.pods[pod.Pod]; was.Outcome != nil && was.UID == pod.UID && pod.Outcome == nil {
		was.Gone = was.Gone || pod.Gone
		pod = was
	}
	v.pods[pod.Pod] = pod
}

// alive returns the pods that were not seen to go, with their UIDs.
func (s *sink) alive() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	alive := map[string]string{}
	for name, pod := range s.view.pods {
		if !pod.Gone {
			alive[name] = pod.UID
		}
	}
	return alive
}

// until waits until what was told is as it should be.
func (s *sink) until(t *testing.T, what string, holds func(*view) bool) {
	t.Helper()
	deadline := time.NewTimer(patient)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		ok, changed := holds(&s.view), s.changed
		seen := s.view.pods
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("%s: not within %s; seen: %+v", what, patient, seen)
		}
	}
}

// refused returns the kind of a refusal, RefusedUnknown for any other error.
func refused(err error) engine.Refused {
	var r *engine.Refusal
	if errors.As(err, &r) {
		return r.Kind
	}
	return engine.RefusedUnknown
}
