package drivertest

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

func create(t *testing.T, h Harness) {
	t.Run("what was created is found, and is ours", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		if _, _, err := s.driver.Find(t.Context(), order); refused(err) != engine.RefusedNotFound {
			t.Errorf("before it was created: %v", err)
		}
		uid := s.create(order)
		found, ours, err := s.driver.Find(t.Context(), order)
		if err != nil || !ours || found != uid || uid == "" {
			t.Errorf("created as %q, found as %q, ours %t, %v", uid, found, ours, err)
		}
		if o := s.end(order); o.UID != uid || o.TaskID != order.TaskID || o.Attempt != 1 {
			t.Errorf("observed as %+v", o)
		}
	})

	t.Run("creating it twice is creating it once", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("echo ran; sleep 1")
		uid := s.create(order)
		for range 3 {
			if _, err := s.driver.Create(t.Context(), order); refused(err) != engine.RefusedExists {
				t.Errorf("the second create: %v", err)
			}
		}
		s.once(order, uid)
	})

	t.Run("creating it at the same time is creating it once", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("echo ran; sleep 1")
		var mu sync.Mutex
		uids := map[string]bool{}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				uid, err := s.driver.Create(t.Context(), order)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					uids[uid] = true
				} else if kind := refused(err); kind != engine.RefusedExists && kind != engine.RefusedTransient {
					t.Errorf("refused: %v", err)
				}
			})
		}
		all.Wait()
		if len(uids) != 1 {
			t.Fatalf("created as %v", uids)
		}
		for uid := range uids {
			s.once(order, uid)
		}
	})

	t.Run("a second process finds what the first created", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		uid := s.create(order)
		if found, ours, err := h.New(t, s.instance).Find(t.Context(), order); err != nil || !ours || found != uid {
			t.Errorf("created as %q, found as %q, ours %t, %v", uid, found, ours, err)
		}
		s.end(order)
	})

	t.Run("a preflight makes nothing, and passes what can be made", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		for range 2 {
			if err := s.driver.Preflight(t.Context(), order); err != nil {
				t.Errorf("preflight: %v", err)
			}
		}
		if _, _, err := s.driver.Find(t.Context(), order); refused(err) != engine.RefusedNotFound {
			t.Errorf("after the preflight: %v", err)
		}
		s.run(order)
	})

	t.Run("somebody else's pod of the name is not ours", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		h.Foreign(t, order.Pod)
		if _, err := s.driver.Create(t.Context(), order); refused(err) != engine.RefusedExists {
			t.Errorf("create: %v", err)
		}
		uid, ours, err := s.driver.Find(t.Context(), order)
		if err != nil || ours || uid == "" {
			t.Errorf("found as %q, ours %t, %v", uid, ours, err)
		}
		if d, err := s.driver.Delete(t.Context(), order.Pod, xid.New().String(), 0); err != nil || d != engine.DeletionGone {
			t.Errorf("deleting another UID: %v, %v", d, err)
		}
		if again, _, err := s.driver.Find(t.Context(), order); err != nil || again != uid {
			t.Errorf("after that it is %q, %v", again, err)
		}
	})

	t.Run("another instance's pod is not ours", func(t *testing.T) {
		first, second := begin(t, h), begin(t, h)
		order := first.shell("true")
		first.run(order)
		order.Instance = second.instance
		if _, ours, err := second.driver.Find(t.Context(), order); err != nil || ours {
			t.Errorf("ours %t, %v", ours, err)
		}
		second.sink.until(t, "nothing", func(v *view) bool {
			if len(v.pods) > 0 {
				t.Errorf("the second instance sees %v", v.pods)
			}
			return true
		})
	})

	t.Run("labels", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("true")
		order.Spec.Name, order.Spec.Labels = "first", map[string]string{"team": "text"}
		s.run(order)
		labels := h.Labels(t, order.Pod)
		for key, want := range map[string]string{
			berth.LabelManagedBy: berth.LabelManagedByValue, berth.LabelInstance: s.instance, berth.LabelTask: order.TaskID,
			berth.LabelAttempt: "1", berth.LabelName: "first", "team": "text",
		} {
			if labels[key] != want {
				t.Errorf("label %s is %q, want %q", key, labels[key], want)
			}
		}
	})

	t.Run("whether a pod existed is remembered", func(t *testing.T) {
		s := begin(t, h)
		began := time.Now().Add(-time.Second)
		order := s.shell("true")
		o := s.run(order)
		s.remove(order, o.UID)
		eventually(t, "it is remembered", func() bool {
			existed, err := s.driver.Vouch(t.Context(), order.Pod, began)
			return existed || err != nil
		})
		if existed, err := s.driver.Vouch(t.Context(), berth.PodName(xid.New().String(), 1, 0), began); existed {
			t.Errorf("one that was never created: %t, %v", existed, err)
		}
	})
}

// once checks that a pod is that one, and that its program ran once.
func (s *trial) once(order engine.Order, uid string) {
	s.t.Helper()
	if found, ours, err := s.driver.Find(s.t.Context(), order); err != nil || !ours || found != uid {
		s.t.Errorf("created as %q, found as %q, ours %t, %v", uid, found, ours, err)
	}
	if o := s.end(order); o.UID != uid || code(o.Outcome) != "0" {
		s.t.Errorf("it ended as %q with %s", o.UID, code(o.Outcome))
	}
	if out := s.output(order); strings.Count(out, "ran\n") != 1 {
		s.t.Errorf("its output is %q", out)
	}
}
