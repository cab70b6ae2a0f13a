package drivertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

func watch(t *testing.T, h Harness) {
	t.Run("a break is told, and what was missed is found", func(t *testing.T) {
		s := begin(t, h)
		stays, ends := s.shell("echo begun; while true; do sleep 0.1; done"), s.shell("sleep 2; exit 4")
		s.create(stays)
		s.create(ends)
		s.running(stays)
		s.running(ends)
		h.Link.Cut()
		s.sink.until(t, "it is noticed", func(v *view) bool { return len(v.lost) > 0 })
		if r := s.sink.view.lost[0]; r.Kind != engine.RefusedUnreachable || r.Diagnosis == nil || r.Diagnosis.Cause != berth.CauseClusterUnreachable {
			t.Errorf("lost: %v %+v", r.Kind, r.Diagnosis)
		}
		for name, err := range map[string]error{
			"create": second(s.driver.Create(t.Context(), s.shell("true"))), "identity": second(s.driver.Identity(t.Context())),
		} {
			// Whether a create reached it may not be known.
			if kind := refused(err); kind != engine.RefusedUnreachable && (name != "create" || kind != engine.RefusedUnknown) {
				t.Errorf("%s meanwhile: %v", name, err)
			}
		}
		listings := 0
		s.sink.until(t, "anything", func(v *view) bool { listings = v.listings; return true })
		h.Link.Mend()
		s.sink.until(t, "a listing", func(v *view) bool { return v.listings > listings })
		if o := s.end(ends); code(o.Outcome) != "4" {
			t.Errorf("outcome %+v", o.Outcome)
		}
		s.sink.until(t, "anything", func(v *view) bool {
			if o := v.pods[stays.Pod]; o.Outcome != nil || o.Gone {
				t.Errorf("what runs is seen as %+v", o)
			}
			return true
		})
	})

	t.Run("a second process sees what was there before", func(t *testing.T) {
		s := begin(t, h)
		runs, ended := s.shell("while true; do sleep 0.1; done"), s.shell("exit 6")
		s.create(runs)
		s.running(runs)
		s.run(ended)
		other := newSink()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		driver := h.New(t, s.instance)
		go func() { defer close(done); driver.Watch(ctx, other) }()
		other.until(t, "the listing", func(v *view) bool { return v.listings > 0 })
		other.until(t, "both", func(v *view) bool {
			return !v.pods[runs.Pod].StartedAt.IsZero() && v.pods[runs.Pod].Outcome == nil && code(v.pods[ended.Pod].Outcome) == "6"
		})
		cancel()
		<-done
	})

	t.Run("many at once", func(t *testing.T) {
		const count = 40
		s := begin(t, h)
		orders := make([]engine.Order, count)
		for i := range orders {
			orders[i] = s.shell("exit " + string(rune('0'+i%10)))
			s.create(orders[i])
		}
		for i, order := range orders {
			if o := s.end(order); code(o.Outcome) != string(rune('0'+i%10)) {
				t.Errorf("%d ended with %s", i, code(o.Outcome))
			}
		}
	})

	t.Run("what the infrastructure is", func(t *testing.T) {
		s := begin(t, h)
		first, err := s.driver.Identity(t.Context())
		if err != nil || first == "" {
			t.Errorf("identity %q, %v", first, err)
		}
		if again, err := h.New(t, s.instance).Identity(t.Context()); err != nil || again != first {
			t.Errorf("identity %q and then %q, %v", first, again, err)
		}
		if v, err := s.driver.Version(t.Context()); err != nil || strings.Trim(v, "v0123456789") == v {
			t.Errorf("version %q, %v", v, err)
		}
		check, err := s.driver.Check(t.Context())
		if err != nil || !check.OK || len(check.Rows) == 0 || check.ServerVersion == "" {
			t.Errorf("check %+v, %v", check, err)
		}
	})

	t.Run("quotas are watched or not, and that is told at once", func(t *testing.T) {
		s := begin(t, h)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		changed := make(chan struct{}, 16)
		err := s.driver.WatchQuota(ctx, func() { changed <- struct{}{} })
		if err == nil || ctx.Err() != nil && len(changed) == 0 {
			t.Errorf("%v after %d changes", err, len(changed))
		}
	})
}

func second[T any](_ T, err error) error { return err }
