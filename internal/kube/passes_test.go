package kube

import (
	"crypto/sha256"
	"strconv"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

func TestPassesAreForgottenInTimeAndBounded(t *testing.T) {
	p := newPasses()
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	p.now = func() time.Time { return now }
	shape := func(i int) [sha256.Size]byte { return sha256.Sum256([]byte(strconv.Itoa(i))) }
	if p.valid(shape(0)) {
		t.Error("one that was never seen passes")
	}
	for i := range passesLimit + 1 {
		p.add(shape(i))
		now = now.Add(time.Millisecond)
	}
	if len(p.until) != passesLimit || p.valid(shape(0)) || !p.valid(shape(1)) || !p.valid(shape(passesLimit)) {
		t.Errorf("%d are remembered; the oldest %t, the second %t", len(p.until), p.valid(shape(0)), p.valid(shape(1)))
	}
	now = now.Add(passLife)
	if p.valid(shape(passesLimit)) {
		t.Error("one of a minute ago still passes")
	}
}

func TestShapeIsWhatAClusterDecidesAbout(t *testing.T) {
	of := func(change func(*berth.TaskSpec), config berth.InfrastructureConfig) [sha256.Size]byte {
		t.Helper()
		spec := berth.TaskSpec{Image: "busybox", Args: []string{"true"}, CPU: "1"}
		if change != nil {
			change(&spec)
		}
		pod, err := renderPod(engine.Order{TaskID: "d3k1", Attempt: 1, Pod: "berth-d3k1-1", Spec: spec}, config, false)
		if err != nil {
			t.Fatal(err)
		}
		return shapeOf(pod)
	}
	first := of(nil, berth.InfrastructureConfig{})
	for name, same := range map[string]func(*berth.TaskSpec){
		"arguments": func(s *berth.TaskSpec) { s.Args = []string{"false"} },
		"variables": func(s *berth.TaskSpec) { s.Env = []berth.EnvVar{{Name: "A", Value: "1"}} },
		"name":      func(s *berth.TaskSpec) { s.Name = "second" },
		"labels":    func(s *berth.TaskSpec) { s.Labels = map[string]string{"a": "b"} },
	} {
		if of(same, berth.InfrastructureConfig{}) != first {
			t.Errorf("other %s make another shape", name)
		}
	}
	for name, other := range map[string]func(*berth.TaskSpec){
		"image":  func(s *berth.TaskSpec) { s.Image = "debian" },
		"CPU":    func(s *berth.TaskSpec) { s.CPU = "2" },
		"memory": func(s *berth.TaskSpec) { s.Memory = "1Gi" },
		"user":   func(s *berth.TaskSpec) { s.User = "1000" },
	} {
		if of(other, berth.InfrastructureConfig{}) == first {
			t.Errorf("another %s makes the same shape", name)
		}
	}
	if of(nil, berth.InfrastructureConfig{Pod: berth.PodConfig{PriorityClass: "gold"}}) == first {
		t.Error("another priority class makes the same shape")
	}
}

// What a task costs whose like was accepted a moment ago.
func BenchmarkPreflightOfAKnownShape(b *testing.B) {
	d := NewDriver(&Client{}, berth.InfrastructureConfig{}, "instance")
	order := engine.Order{TaskID: "d3k1", Attempt: 1, Pod: "berth-d3k1-1", Spec: berth.TaskSpec{Image: "busybox", Args: []string{"true"}, CPU: "1"}}
	pod, err := renderPod(order, d.config, false)
	if err != nil {
		b.Fatal(err)
	}
	d.passes.add(shapeOf(pod))
	for b.Loop() {
		if err := d.Preflight(b.Context(), order); err != nil {
			b.Fatal(err)
		}
	}
}
