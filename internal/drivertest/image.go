package drivertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// stall makes a pod that can't come up, and returns why it stays as it is and
// for how long it may: what a refusal of it says, or what is seen of it.
func (s *trial) stall(order engine.Order) (*berth.Diagnosis, berth.Patience) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patient)
	defer cancel()
	_, err := s.driver.Create(ctx, order)
	var refusal *engine.Refusal
	if errors.As(err, &refusal) {
		switch refusal.Kind {
		case engine.RefusedTransient:
			return refusal.Diagnosis, refusal.Patience
		case engine.RefusedPermanent:
			return refusal.Diagnosis, berth.PatienceNone
		}
	}
	if err != nil {
		s.t.Fatalf("create: %v", err)
	}
	var o berth.Observation
	s.sink.until(s.t, order.Pod+" says what it lacks", func(v *view) bool {
		o = v.pods[order.Pod]
		return o.Diagnosis != nil || o.Outcome != nil
	})
	if o.Outcome != nil {
		return o.Outcome.Diagnosis, berth.PatienceNone
	}
	return o.Diagnosis, o.Patience
}

func image(t *testing.T, h Harness) {
	start := []berth.Patience{berth.PatienceStart, berth.PatienceLaunch}
	tests := []struct {
		name     string
		spec     berth.TaskSpec
		cause    berth.Cause
		patience []berth.Patience // one of
	}{
		{"not found", berth.TaskSpec{Image: h.NotFound}, berth.CauseImageNotFound, []berth.Patience{berth.PatiencePull}},
		{"private", berth.TaskSpec{Image: h.Private}, berth.CauseImageUnauthorized, []berth.Patience{berth.PatiencePull}},
		{"its registry can't be reached", berth.TaskSpec{Image: h.NoRegistry}, berth.CauseRegistryUnreachable, start},
		{"never to be pulled, and not there", berth.TaskSpec{Image: h.NotFound, Pull: berth.PullNever}, berth.CauseImageNeverPull, []berth.Patience{berth.PatienceNone}},
		{"always to be pulled, though it is there", berth.TaskSpec{Image: h.NoRegistry, Pull: berth.PullAlways}, berth.CauseRegistryUnreachable, start},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := begin(t, h)
			test.spec.Args = []string{"true"}
			d, patience := s.stall(s.order(test.spec))
			if d == nil || d.Cause != test.cause {
				t.Fatalf("diagnosis %+v", d)
			}
			ok := false
			for _, p := range test.patience {
				ok = ok || p == patience
			}
			if !ok {
				t.Errorf("patience %v, want one of %v", patience, test.patience)
			}
		})
	}

	t.Run("there, and never to be pulled", func(t *testing.T) {
		s := begin(t, h)
		if o := s.run(s.order(berth.TaskSpec{Pull: berth.PullNever, Args: []string{"true"}})); code(o.Outcome) != "0" {
			t.Errorf("outcome %+v", o.Outcome)
		}
	})

	t.Run("a retry runs the same", func(t *testing.T) {
		s := begin(t, h)
		first := s.shell("exit 1")
		o := s.run(first)
		second := first
		second.Attempt, second.Pod, second.ImageID = 2, berth.PodName(first.TaskID, 2, 0), o.ImageID
		again := s.run(second)
		if again.ImageID != o.ImageID || again.Attempt != 2 || code(again.Outcome) != "1" {
			t.Errorf("the first ran %s; the second %+v", o.ImageID, again)
		}
	})

	t.Run("what can be asked for and can't be had is told", func(t *testing.T) {
		s := begin(t, h)
		for want, spec := range map[berth.Cause]berth.TaskSpec{
			berth.CauseInsufficientMemory: {Memory: "400Ti", Args: []string{"true"}},
			berth.CauseInsufficientCPU:    {CPU: "4000", Args: []string{"true"}},
			berth.CauseInsufficientGPU:    {GPU: 8, Args: []string{"true"}},
		} {
			if d, _ := s.stall(s.order(spec)); d == nil || d.Cause != want {
				t.Errorf("want %s, got %+v", want, d)
			}
		}
	})

	t.Run("giving up a create", func(t *testing.T) {
		s := begin(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		order := s.order(berth.TaskSpec{Image: h.NotFound, Args: []string{"true"}})
		if _, err := s.driver.Create(ctx, order); err == nil {
			t.Error("it was created all the same")
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
