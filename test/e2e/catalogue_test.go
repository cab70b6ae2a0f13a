//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// neverProduced are causes that no test can bring a cluster to show, and why.
var neverProduced = map[berth.Cause]string{}

// catalogue counts what this run produced of the causes that Berth names, and
// how long after the cluster Berth showed them.
var catalogue struct {
	sync.Mutex
	produced map[berth.Cause]int
	measured int
	worst    time.Duration
	slowest  string
}

// produced takes note that the cluster really showed a cause, and Berth named it.
func produced(cause berth.Cause) {
	catalogue.Lock()
	defer catalogue.Unlock()
	if catalogue.produced == nil {
		catalogue.produced = map[berth.Cause]int{}
	}
	catalogue.produced[cause]++
}

// shownAfter takes note of how long after the cluster Berth showed a cause.
func shownAfter(what string, delay time.Duration) {
	catalogue.Lock()
	defer catalogue.Unlock()
	catalogue.measured++
	if delay > catalogue.worst {
		catalogue.worst, catalogue.slowest = delay, what
	}
}

// summarize prints what was produced, and reports whether it is all that can be.
func summarize(w io.Writer) bool {
	catalogue.Lock()
	defer catalogue.Unlock()
	var missing, never []string
	for _, cause := range berth.Causes {
		why, impossible := neverProduced[cause]
		switch done := catalogue.produced[cause] > 0; {
		case done && impossible:
			missing = append(missing, string(cause)+" (it was produced: take it from neverProduced)")
		case impossible:
			never = append(never, fmt.Sprintf("%s (%s)", cause, why))
		case !done:
			missing = append(missing, string(cause))
		}
	}
	fmt.Fprintf(w, "causes produced on the cluster: %d of %d\n", len(catalogue.produced), len(berth.Causes))
	if catalogue.measured > 0 {
		fmt.Fprintf(w, "shown by Berth after the cluster showed it: %d measured, at most %s (%s)\n", catalogue.measured, catalogue.worst.Round(time.Millisecond), catalogue.slowest)
	}
	if len(never) > 0 {
		fmt.Fprintf(w, "cannot be produced: %s\n", strings.Join(never, ", "))
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		fmt.Fprintf(w, "not produced: %s\n", strings.Join(missing, ", "))
	}
	return len(missing) == 0
}
