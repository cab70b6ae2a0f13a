package berth_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/berth-run/berth"
)

// TestAStoryEndsTheSameInAnyOrder lets all that the agents of a task's attempts
// and its containers tell come in any order and twice, the attempts' mixed: how
// the task ends is what it is when all comes once and in order.
func TestAStoryEndsTheSameInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		retries := rapid.IntRange(0, 2).Draw(t, "retries")
		spec := func(s *berth.TaskSpec) { twoSteps(s); s.Retries = retries }
		last := rapid.IntRange(0, 1).Draw(t, "last")
		plain, l := launched(spec), launched(spec)
		run := &disorder{T: t, life: l, seqs: map[int]int{}}
		for number := 1; number <= retries+1; number++ {
			code := 1
			if number > retries {
				code = last
			}
			tellAll(plain, story(code))
			run.attempt(story(code))
			if number <= retries {
				for _, life := range []*berth.Life{plain, l} {
					life.Admit(at(time.Duration(number) * time.Minute))
					life.Seen("uid", false, at(time.Duration(number)*time.Minute))
				}
			}
		}
		if diff := cmp.Diff(ends(plain), ends(l)); diff != "" {
			t.Fatalf("(-in order +in disorder):\n%s", diff)
		}
		if run.terminal != 1 || run.warnings != 0 {
			t.Fatalf("%d ends and %d warnings were told", run.terminal, run.warnings)
		}
	})
}

// disorder tells attempts' stories in disorder, and looks after what must
// always hold.
type disorder struct {
	*rapid.T
	life     *berth.Life
	seqs     map[int]int
	earlier  []func() []berth.Event // of attempts before
	terminal int
	warnings int
}

// attempt tells all of one story, shuffled, its container's end anywhere in it,
// with repeats and with what came from attempts before.
func (d *disorder) attempt(events []berth.AgentEvent) {
	l, number, pod := d.life, d.life.Current().Number, d.life.Current().Pod
	var all []func() []berth.Event
	for _, e := range events {
		all = append(all, func() []berth.Event { return l.Told(number, pod, e, at(10*time.Second)) })
	}
	seen := exited(l, 0)
	outcome := *events[len(events)-1].Outcome // it reads what the agent left
	seen.Outcome = &outcome
	all = append(all, func() []berth.Event { return l.Observe(seen, at(10*time.Second)) })
	pool := append(append([]func() []berth.Event{}, all...), d.earlier...)
	pool = append(pool, all[rapid.IntRange(0, len(all)-1).Draw(d.T, "twice")])
	for _, happen := range rapid.Permutation(pool).Draw(d.T, "order") {
		d.take(happen())
	}
	d.earlier = append(d.earlier, all...)
}

func (d *disorder) take(events []berth.Event) {
	for _, e := range events {
		switch e.Type {
		case berth.EventFinished, berth.EventFailed, berth.EventStopped, berth.EventLost:
			d.terminal++
		case berth.EventWarning:
			d.warnings++
		}
	}
	for i := range d.life.Attempts {
		a := &d.life.Attempts[i]
		if a.AgentSeq < d.seqs[a.Number] {
			d.Fatalf("attempt %d: event %d came after %d", a.Number, a.AgentSeq, d.seqs[a.Number])
		}
		d.seqs[a.Number] = a.AgentSeq
	}
}
