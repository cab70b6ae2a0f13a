package engine

import (
	"testing"
	"time"
)

func TestThePaceOfCreates(t *testing.T) {
	p := newPace()
	now := time.Now()
	for range 5000 {
		p.answered(50*time.Millisecond, false, now)
	}
	if got := p.limit(); got != paceMax {
		t.Errorf("while answers are quick %d may be under way", got)
	}
	p.answered(3*time.Second, false, now)
	p.answered(3*time.Second, false, now) // it was sent before the cut
	if got, want := p.limit(), 44; got != want {
		t.Errorf("after a slow answer %d may be under way, not %d", got, want)
	}
	for range 100 {
		now = now.Add(2 * paceRest)
		p.answered(time.Millisecond, true, now)
	}
	if got := p.limit(); got != 1 {
		t.Errorf("while there is too much to do %d may be under way", got)
	}
	for range 100 {
		p.answered(700*time.Millisecond, false, now)
	}
	if got := p.limit(); got != 1 {
		t.Errorf("answers that are neither quick nor slow made it %d", got)
	}
}

func TestARateOfCreatesThatWasAskedForIsKept(t *testing.T) {
	p := newPace()
	p.perSecond(2)
	now := time.Now()
	sent := 0
	for end := now.Add(10 * time.Second); now.Before(end); sent++ {
		now = now.Add(p.delay(now))
		p.took(now)
	}
	if sent < 20 || sent > 23 {
		t.Errorf("%d were sent in 10 s", sent)
	}
	p.perSecond(0)
	if wait := p.delay(now); wait != 0 {
		t.Errorf("without a limit it waits %s", wait)
	}
}
