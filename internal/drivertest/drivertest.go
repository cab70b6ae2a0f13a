// Package drivertest is one suite of what every engine.Driver promises, run on
// real infrastructures (test/e2e). It speaks of pods as the engine does,
// whatever they are to the driver, and knows none.
package drivertest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// Harness is an infrastructure to try a driver on.
type Harness struct {
	// New returns a driver for what an instance runs, connected by the link.
	New  func(t *testing.T, instance string) engine.Driver
	Link *Link

	Image      string // of busybox
	NotFound   string // an image that its registry says isn't there
	Private    string // one that is not given without a login
	NoRegistry string // one of a registry that can't be reached

	// Foreign makes a pod of that name which is not Berth's.
	Foreign func(t *testing.T, pod string)
	// Labels are those of a pod.
	Labels func(t *testing.T, pod string) map[string]string
	// Destroy deletes a pod at once, as somebody else would.
	Destroy func(t *testing.T, pod string)
}

// Run tries all that a driver promises.
func Run(t *testing.T, h Harness) {
	groups := []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"create", create}, {"outcome", outcome}, {"image", image}, {"program", program}, {"delete", deletion}, {"log", log}, {"watch", watch}, {"usage", usage},
	}
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) { group.test(t, h) })
	}
}

// patient is how long something may take that takes a moment.
const patient = 60 * time.Second

// trial is one instance's driver, watched.
type trial struct {
	t        *testing.T
	h        Harness
	instance string
	driver   engine.Driver
	sink     *sink
}

// begin returns a driver of an instance of its own that is being watched. At
// the end of the test nothing of it is left.
func begin(t *testing.T, h Harness) *trial {
	t.Helper()
	instance := xid.New().String()
	s := &trial{t: t, h: h, instance: instance, driver: h.New(t, instance), sink: newSink()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.driver.Watch(ctx, s.sink)
	}()
	t.Cleanup(func() {
		s.clear()
		cancel()
		select {
		case <-ended:
		case <-time.After(patient):
			t.Error("Watch did not return when its context ended")
		}
	})
	s.sink.until(t, "the first listing", func(v *view) bool { return v.listings > 0 })
	return s
}

// clear deletes what the trial made.
func (s *trial) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	for pod, uid := range s.sink.alive() {
		for range 2 {
			if d, err := s.driver.Delete(ctx, pod, uid, 0); err != nil || d != engine.DeletionStopped {
				break
			}
		}
	}
}

// order is an attempt that was not made yet.
func (s *trial) order(spec berth.TaskSpec) engine.Order {
	if spec.Image == "" {
		spec.Image = s.h.Image
	}
	id := xid.New().String()
	return engine.Order{Instance: s.instance, TaskID: id, Attempt: 1, Pod: berth.PodName(id, 1, 0), Spec: spec}
}

// shell is an order that runs a script.
func (s *trial) shell(script string) engine.Order {
	return s.order(berth.TaskSpec{Args: []string{"sh", "-c", script}})
}

// create makes a pod, trying again what passes by itself.
func (s *trial) create(order engine.Order) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patient)
	defer cancel()
	for {
		uid, err := s.driver.Create(ctx, order)
		if err == nil {
			return uid
		}
		if kind := refused(err); kind != engine.RefusedTransient {
			s.t.Fatalf("create: %v (%v)", err, kind)
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("create: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// end waits for the end of a pod.
func (s *trial) end(order engine.Order) berth.Observation {
	s.t.Helper()
	var last berth.Observation
	s.sink.until(s.t, "the end of "+order.Pod, func(v *view) bool {
		last = v.pods[order.Pod]
		return last.Outcome != nil
	})
	return last
}

// run makes a pod and waits for its end.
func (s *trial) run(order engine.Order) berth.Observation {
	s.t.Helper()
	s.create(order)
	return s.end(order)
}

// running waits until the program of a pod runs.
func (s *trial) running(order engine.Order) {
	s.t.Helper()
	s.sink.until(s.t, order.Pod+" runs", func(v *view) bool { return !v.pods[order.Pod].StartedAt.IsZero() })
}

// written waits until a pod's log has a text.
func (s *trial) written(order engine.Order, text string) {
	s.t.Helper()
	s.running(order)
	eventually(s.t, fmt.Sprintf("%s writes %q", order.Pod, text), func() bool { return strings.Contains(s.output(order), text) })
}

// absent waits until a pod isn't there any more.
func (s *trial) absent(order engine.Order) {
	s.t.Helper()
	eventually(s.t, order.Pod+" is gone", func() bool {
		_, _, err := s.driver.Find(s.t.Context(), order)
		return err != nil && refused(err) == engine.RefusedNotFound
	})
}

// eventually waits until something holds that nothing tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patient)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patient)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// cause returns the cause of an outcome's diagnosis.
func cause(o *berth.Outcome) berth.Cause {
	if o == nil || o.Diagnosis == nil {
		return ""
	}
	return o.Diagnosis.Cause
}

// code writes an exit code, "none" for none.
func code(o *berth.Outcome) string {
	if o == nil || o.ExitCode == nil {
		return "none"
	}
	return strconv.Itoa(*o.ExitCode)
}
