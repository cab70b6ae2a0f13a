package runs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/workflow"
)

// diverged notes where the program first went another way than before.
func (x *execution) diverged(d *workflow.Diverged) {
	x.note(func() {
		if x.run.Diverged == nil {
			text := fmt.Sprintf("%s: %s has other arguments now; it and what needs it is done anew", d.At, d.Key)
			x.run.Diverged, x.edited = &text, true
		}
	})
}

// handled notes that the program went on with a call's failure.
func (x *execution) handled(key string) {
	x.note(func() {
		if c := x.calls[key]; c != nil && !c.Handled {
			c.Handled = true
			x.changed(c)
		}
	})
}

// maxPrinted is how many lines that a program prints are kept, and how long each
// may be.
const (
	maxPrinted      = 10_000
	maxPrintedBytes = 16 << 10
)

// print notes what the program printed, once.
func (x *execution) print(n int, text string) {
	switch {
	case n > maxPrinted:
		return
	case n == maxPrinted:
		text = "(what is printed from here on is not kept)"
	case len(text) > maxPrintedBytes:
		text = strings.ToValidUTF8(text[:maxPrintedBytes], "") + " ..."
	}
	key := "print#" + strconv.Itoa(n)
	x.note(func() {
		if c := x.calls[key]; c != nil && c.Label != nil && *c.Label == text {
			return
		}
		x.seq++
		now := time.Now().UTC()
		c := &call{RunCall: berth.RunCall{Seq: x.seq, Key: key, Kind: "print", Name: "print", Label: &text, State: berth.CallPrinted, BeganAt: now, EndedAt: &now, Generation: x.run.Resumed}}
		x.calls[key] = c
		x.changed(c)
	})
}

// note changes something and tells who watches.
func (x *execution) note(change func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if change != nil {
		change()
	}
	x.announce()
}

// announce wakes who watches. The caller holds mu.
func (x *execution) announce() {
	close(x.watchers)
	x.watchers = make(chan struct{})
}

// changed says that a call is not stored as it is. The caller holds mu.
func (x *execution) changed(c *call) {
	x.version++
	c.version = x.version
	x.dirty[c] = true
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// changes returns a channel that is closed at the next change of the run; of one
// that nobody executes here a while later, as it may be begun.
func (x *execution) changes() <-chan struct{} {
	if x != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.watchers
	}
	later := make(chan struct{})
	time.AfterFunc(lookAgain, func() { close(later) })
	return later
}

// lookAgain is how often a run is looked at that nobody executes here.
const lookAgain = 500 * time.Millisecond

// current returns the run as it stands.
func (x *execution) current(ctx context.Context, store Store, id string) (berth.Run, error) {
	if x != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.run.ID != "" {
			run := x.run
			run.Calls = map[berth.CallState]int{}
			for _, state := range berth.CallStates {
				run.Calls[state] = 0
			}
			for _, c := range x.calls {
				if c.State != berth.CallPrinted {
					run.Calls[c.State]++
				}
			}
			return run, nil
		}
	}
	return store.Run(ctx, id)
}

// changedCalls returns the calls whose versions weren't seen, in the order in
// which they began, and notes them as seen.
func (x *execution) changedCalls(seen map[string]int64) []berth.RunCall {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []berth.RunCall
	for key, c := range x.calls {
		if seen[key] != c.version {
			seen[key] = c.version
			all = append(all, c.RunCall)
		}
	}
	slices.SortFunc(all, func(a, b berth.RunCall) int { return int(a.Seq - b.Seq) })
	return all
}
