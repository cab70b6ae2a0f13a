package drivertest

import (
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// usage tries what is told of what pods use.
func usage(t *testing.T, h Harness) {
	s, other := begin(t, h), begin(t, h)
	busy, idle, foreign := s.shell("while :; do :; done"), s.shell("sleep 600"), other.shell("sleep 600")
	s.create(busy)
	s.create(idle)
	other.create(foreign)
	s.running(busy)
	s.running(idle)

	var first map[string]berth.Reading
	eventually(t, "both pods are measured", func() bool {
		readings, err := s.driver.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		first = readings
		return len(readings) == 2 && used(readings[busy.Pod]) > 0
	})
	for pod, r := range first {
		if pod != busy.Pod && pod != idle.Pod {
			t.Errorf("%s of another instance is told", pod)
		}
		if age := time.Since(r.At); age < -time.Minute || age > 5*time.Minute || r.Source == "" || r.MemoryBytes <= 0 {
			t.Errorf("%s: %+v", pod, r)
		}
	}
	if used(first[busy.Pod]) <= used(first[idle.Pod]) {
		t.Errorf("a busy pod used %+v, an idle one %+v", first[busy.Pod], first[idle.Pod])
	}
	eventually(t, "there is something new", func() bool {
		readings, err := s.driver.Usage(t.Context())
		return err == nil && readings[busy.Pod].At.After(first[busy.Pod].At)
	})
}

// used is a reading's CPU, whichever way it is told.
func used(r berth.Reading) float64 {
	if r.CPUSeconds != nil {
		return *r.CPUSeconds
	}
	return r.Cores
}
