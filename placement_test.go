package berth

import (
	"maps"
	"slices"
	"testing"
	"time"
)

func TestParseOn(t *testing.T) {
	if name, where, err := ParseOn("site-a"); name != "site-a" || where != nil || err != nil {
		t.Errorf("%q %v %v", name, where, err)
	}
	if name, where, err := ParseOn("gpu=a100, site=delft"); name != "" || !maps.Equal(where, map[string]string{"gpu": "a100", "site": "delft"}) || err != nil {
		t.Errorf("%q %v %v", name, where, err)
	}
	for _, text := range []string{"gpu=a100,site", "=x", "gpu=a b", "berth.run/x=1"} {
		if _, _, err := ParseOn(text); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCandidatesAreOrderedByRoom(t *testing.T) {
	candidates := []Candidate{
		{Name: "away", MaxPods: 10, Order: 0},
		{Name: "full", Ready: true, Live: 30, Queued: 20, MaxPods: 10, Order: 1},
		{Name: "held", Ready: true, Live: 1, MaxPods: 10, Held: true, Order: 2},
		{Name: "half", Ready: true, Live: 50, MaxPods: 100, Order: 3},
		{Name: "small", Ready: true, Live: 4, MaxPods: 10, Order: 4},
		{Name: "same", Ready: true, Live: 4, MaxPods: 10, Order: 5},
	}
	ByRoom(candidates)
	var names []string
	for _, c := range candidates {
		names = append(names, c.Name)
	}
	if want := []string{"small", "same", "half", "full", "held", "away"}; !slices.Equal(names, want) {
		t.Errorf("%v, not %v", names, want)
	}
}

func TestTasksMoveOnlyToWhereThereIsRoom(t *testing.T) {
	full, free := Candidate{Ready: true, Live: 30, Queued: 20, MaxPods: 10}, Candidate{Ready: true, Live: 6, MaxPods: 10}
	if n := Moves(full, free); n != 4 {
		t.Errorf("%d move", n)
	}
	if n := Moves(free, full); n != 0 {
		t.Errorf("%d move back", n)
	}
	away := full
	away.Ready = false
	if n := Moves(away, free); n != 4 {
		t.Errorf("%d move from one that is out of reach", n)
	}
	held := free
	held.Held = true
	if n := Moves(full, held); n != 0 {
		t.Errorf("%d move to one whose quota is full", n)
	}
}

func TestOnlyWhatWasNeverTriedMoves(t *testing.T) {
	now := time.Now()
	fresh := func() *Life {
		l, _ := NewLife("t", "ann", "k", TaskSpec{Infrastructure: "a"}, now)
		l.Among = []string{"a", "b"}
		return l
	}
	if l := fresh(); len(l.Move("b", "ann", "room", now)) != 1 || l.Task.Infrastructure != "b" || !l.Parked() {
		t.Errorf("it is on %s", l.Task.Infrastructure)
	}
	if l := fresh(); l.Move("c", "ann", "room", now) != nil {
		t.Error("it moved to where it may not run")
	}
	tried := fresh()
	tried.Admit(now)
	if tried.Move("b", "ann", "room", now) != nil {
		t.Error("it moved though a pod of it may exist")
	}
}
