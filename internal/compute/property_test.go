package compute

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth"
)

// TestWhateverHappensAClusterBecomesWhatIsWanted drives one cluster by events as
// they come, and then lets things be.
func TestWhateverHappensAClusterBecomesWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Custom(func(t *rapid.T) berth.ClusterGroup {
			least := rapid.IntRange(0, 4).Draw(t, "least")
			if rapid.Bool().Draw(t, "adaptive") {
				return berth.ClusterGroup{Min: least, Max: least + rapid.IntRange(1, 4).Draw(t, "more")}
			}
			return berth.ClusterGroup{Count: least}
		})
		names := []string{"a", "b"}
		s := newSite()
		for _, name := range names {
			g := size.Draw(t, name)
			g.Name = name
			s.record.Cluster.Spec.Workers = append(s.record.Cluster.Spec.Workers, g)
		}
		s.pass()
		s.headRuns()
		s.answers() // once: what never answers is given up
		s.pass()
		anyOf := func(may func(berth.Task) bool) string {
			var ids []string
			for _, id := range s.ids() {
				if may(s.workers[id]) {
					ids = append(ids, id)
				}
			}
			if len(ids) == 0 {
				t.Skip("there is none")
			}
			return rapid.SampledFrom(ids).Draw(t, "worker")
		}
		waiting := func(task berth.Task) bool { return task.Waiting() }
		live := func(task berth.Task) bool { return task.ID != "" && !task.State.Terminal() }
		runs := func(task berth.Task) bool { return task.State == berth.StateRunning && s.state != nil }
		check := func() acts {
			before, busy := asJSON(s.record), s.view
			busy.workers = maps.Clone(s.workers)
			if s.state != nil {
				state := *s.state
				state.Workers = maps.Clone(state.Workers)
				busy.state = &state
			}
			next, _ := decide(busy)
			if asJSON(s.record) != before {
				t.Fatalf("what is decided changes what it is decided from")
			}
			holds(t, &busy, &next)
			return s.pass()
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for _, g := range s.record.Cluster.Groups {
					if g.Wanted < 0 || g.Ready < 0 || g.Waiting < 0 || g.Draining < 0 {
						t.Fatalf("%+v", g)
					}
				}
			},
			"pass":   func(*rapid.T) { check() },
			"later":  func(t *rapid.T) { s.later(time.Duration(rapid.IntRange(1, 700).Draw(t, "s")) * time.Second) },
			"answer": func(*rapid.T) { s.answers() },
			"silent": func(*rapid.T) { s.silent(errors.New("no answer")) },
			"scale": func(t *rapid.T) {
				g := size.Draw(t, "size")
				g.Name = rapid.SampledFrom(names).Draw(t, "group")
				s.scaled(g)
			},
			"target": func(t *rapid.T) {
				if s.state != nil {
					s.state.Target = rapid.IntRange(0, 12).Draw(t, "target")
				}
			},
			"start": func(*rapid.T) { s.starts(anyOf(waiting)) },
			"known first": func(t *rapid.T) { // that it runs is seen later
				if s.state == nil {
					t.Skip("nobody answers")
				}
				id := anyOf(waiting)
				pod := podOf(id)
				s.change(id, func(t *berth.Task) { t.State, t.Pod = berth.StateLaunching, &pod })
				s.state.Workers[pod] = Worker{Running: true}
			},
			"join":    func(*rapid.T) { s.joins(anyOf(runs)) },
			"compute": func(t *rapid.T) { s.computes(anyOf(runs), rapid.IntRange(0, 3).Draw(t, "n")) },
			"drained": func(*rapid.T) { s.drained(anyOf(runs)) },
			"end": func(t *rapid.T) {
				s.ends(anyOf(live), rapid.SampledFrom([]berth.TaskState{berth.StateFailed, berth.StateSucceeded, berth.StateLost, berth.StateCancelled}).Draw(t, "state"), "")
			},
			"unreadable": func(*rapid.T) { s.workers[anyOf(live)] = berth.Task{} },
		})
		settle(t, s, check)
	})
}

// holds says what must not be decided.
func holds(t *rapid.T, v *view, next *berth.ClusterRecord) {
	for id, m := range next.Keeping.Members {
		task, was := v.workers[id], v.record.Keeping.Members[id]
		if !m.Dropped || was.Dropped || task.State != berth.StateRunning {
			continue
		}
		late := was.Draining != nil && v.now.Sub(*was.Draining) >= next.Cluster.Spec.DrainTimeout
		worker, known := Worker{}, false
		if v.state != nil {
			worker, known = v.state.Workers[*task.Pod]
		}
		if !late && (v.state == nil || known && (was.Draining == nil || !worker.Drained)) {
			t.Fatalf("%s is ended: %+v", id, worker)
		}
	}
	for _, g := range next.Cluster.Spec.Workers {
		if !g.Adaptive() {
			continue
		}
		for id, m := range next.Keeping.Members {
			if was := v.record.Keeping.Members[id]; m.Group == g.Name && m.Draining != nil && was.Draining == nil && v.workers[id].State == berth.StateRunning {
				if worker := v.state.Workers[podOf(id)]; !worker.Idle() {
					t.Fatalf("%s is drained for the engine while it computes", id)
				}
			}
		}
	}
}

// settle has all go well: what is made joins, what is drained has drained, what is
// cancelled ends. Then there are as many workers as are wanted.
func settle(t *rapid.T, s *site, pass func() acts) {
	pass()
	s.later(time.Second)
	at := s.now
	for _, g := range s.record.Cluster.Spec.Workers { // what was given up is tried again
		s.scaled(g)
	}
	for range 100 {
		s.later(5 * time.Second)
		acts := pass()
		s.headRuns()
		if s.state == nil {
			s.answers()
		}
		for _, id := range s.ids() {
			m, task := s.record.Keeping.Members[id], s.workers[id]
			pod := podOf(id)
			s.state.Target = 5
			switch {
			case task.State.Terminal():
			case task.ID == "":
				s.workers[id] = berth.Task{ID: id, State: berth.StateQueued}
			case task.CancelledAt != nil:
				s.ends(id, berth.StateCancelled, "")
			case m.Draining != nil && s.state.Workers[pod].Running:
				s.drained(id)
			default:
				s.joins(id)
			}
		}
		settled := len(acts.make)+len(acts.cancel)+len(acts.drain) == 0 && !acts.makeHead
		for _, g := range s.record.Cluster.Groups {
			settled = settled && g.Ready == g.Wanted && g.Waiting == 0 && g.Draining == 0
		}
		if settled && s.now.Sub(at) > time.Minute {
			within(t, s)
			return
		}
	}
	t.Fatalf("after %s: %s", s.now.Sub(at), asJSON(s.record))
}

// within checks how many workers are wanted and are there.
func within(t *rapid.T, s *site) {
	for i, g := range s.record.Cluster.Spec.Workers {
		status, n := s.record.Cluster.Groups[i], 0
		for _, m := range s.record.Keeping.Members {
			if m.Group == g.Name {
				n++
			}
		}
		if n != status.Wanted || status.Wanted < g.Least() || status.Wanted > g.Most() {
			t.Fatalf("%d workers of group %+v, which wants %d", n, g, status.Wanted)
		}
	}
	if numbers := slices.Sorted(maps.Keys(s.made)); len(numbers) != s.record.Keeping.Next["a"]+s.record.Keeping.Next["b"] {
		t.Fatalf("made %v, next %v", numbers, s.record.Keeping.Next)
	}
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return string(text)
}
