package drivertest

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// remove deletes a pod until it isn't there any more.
func (s *trial) remove(order engine.Order, uid string) {
	s.t.Helper()
	for range 3 {
		d, err := s.driver.Delete(s.t.Context(), order.Pod, uid, 0)
		if err != nil {
			s.t.Fatalf("delete: %v", err)
		}
		if d == engine.DeletionStopped {
			s.end(order)
			continue
		}
		break
	}
	s.absent(order)
}

func deletion(t *testing.T, h Harness) {
	t.Run("what isn't there", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		if d, err := s.driver.Delete(t.Context(), order.Pod, xid.New().String(), -1); err != nil || d != engine.DeletionGone {
			t.Errorf("%v, %v", d, err)
		}
	})

	t.Run("what has ended", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		o := s.run(order)
		if d, err := s.driver.Delete(t.Context(), order.Pod, o.UID, 10*time.Second); err != nil || d == engine.DeletionStopped {
			t.Errorf("%v, %v", d, err)
		}
		s.absent(order)
		s.sink.until(t, "its end is told", func(v *view) bool { return v.pods[order.Pod].Gone })
		if d, err := s.driver.Delete(t.Context(), order.Pod, o.UID, 10*time.Second); err != nil || d != engine.DeletionGone {
			t.Errorf("the second time: %v, %v", d, err)
		}
	})

	for _, test := range []struct {
		name, script string
		least, most  time.Duration // that it may take
	}{
		{"a program that heeds SIGTERM", "trap 'echo stopped; exit 7' TERM; echo begun; while true; do sleep 0.1; done", 0, 8 * time.Second},
		{"a program that ignores SIGTERM", "trap '' TERM; echo begun; while true; do sleep 0.1; done", time.Second, 25 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := begin(t, h)
			order := s.shell(test.script)
			uid := s.create(order)
			s.written(order, "begun")
			began := time.Now()
			d, err := s.driver.Delete(t.Context(), order.Pod, uid, 3*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var o berth.Observation
			s.sink.until(t, "it ends", func(v *view) bool {
				o = v.pods[order.Pod]
				return o.Outcome != nil || o.Gone
			})
			if took := time.Since(began); took < test.least || took > test.most {
				t.Errorf("it took %s", took)
			}
			if d != engine.DeletionStopped {
				s.absent(order)
				return
			}
			// It stays, so that nothing of it is lost.
			if o.Outcome == nil || o.Outcome.ExitCode == nil || *o.Outcome.ExitCode == 0 {
				t.Errorf("outcome %+v", o.Outcome)
			}
			if out := s.output(order); !strings.HasPrefix(out, "begun\n") {
				t.Errorf("output %q", out)
			}
			if d, err := s.driver.Delete(t.Context(), order.Pod, uid, 3*time.Second); err != nil || d != engine.DeletionGone {
				t.Errorf("the second time: %v, %v", d, err)
			}
			s.absent(order)
		})
	}

	t.Run("at once", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("trap '' TERM; echo begun; while true; do sleep 0.1; done")
		uid := s.create(order)
		s.written(order, "begun")
		s.remove(order, uid)
	})

	t.Run("by another hand", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("echo begun; while true; do sleep 0.1; done")
		s.create(order)
		s.written(order, "begun")
		h.Destroy(t, order.Pod)
		var o berth.Observation
		s.sink.until(t, "it is gone", func(v *view) bool { o = v.pods[order.Pod]; return o.Gone })
		if o.Outcome != nil && o.Outcome.Success() {
			t.Errorf("outcome %+v", o.Outcome)
		}
	})
}
