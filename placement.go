package berth

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ParseOn reads where a task is to run: the name of an infrastructure, or labels
// KEY=VALUE[,KEY=VALUE] that it has to have.
func ParseOn(text string) (name string, where map[string]string, err error) {
	if !strings.Contains(text, "=") {
		return text, nil, nil
	}
	where = map[string]string{}
	for _, pair := range strings.Split(text, ",") {
		key, value, found := strings.Cut(strings.TrimSpace(pair), "=")
		if !found {
			return "", nil, Errorf(CodeInvalid, "--on %s: write the name of an infrastructure, or labels KEY=VALUE, separated by commas", text)
		}
		if err := ValidateLabel(key, value); err != nil {
			return "", nil, Errorf(CodeInvalid, "--on %s: %w", text, err)
		}
		where[key] = value
	}
	return "", where, nil
}

// Candidate is an infrastructure that a task without a fixed place may run on.
type Candidate struct {
	Name    string
	Ready   bool
	Live    int // tasks that have not ended, those that wait among them
	Queued  int
	MaxPods int
	Held    bool // a quota holds back what asks for the same
	Order   int  // in infra.yml
}

// room is how many tasks more could begin now.
func (c *Candidate) room() int {
	if c.Held || !c.Ready {
		return 0
	}
	return max(0, c.MaxPods-c.Live)
}

// ByRoom orders candidates: those with room before those without, ready ones
// before others, and then by how much of them is taken, what waits included.
func ByRoom(candidates []Candidate) {
	slices.SortStableFunc(candidates, func(a, b Candidate) int {
		if ra, rb := a.room() > 0, b.room() > 0; ra != rb {
			return yesFirst(ra)
		}
		if a.Ready != b.Ready {
			return yesFirst(a.Ready)
		}
		if a.Held != b.Held {
			return yesFirst(b.Held)
		}
		if x, y := a.Live*max(1, b.MaxPods), b.Live*max(1, a.MaxPods); x != y {
			return x - y
		}
		return a.Order - b.Order
	})
}

func yesFirst(first bool) int {
	if first {
		return -1
	}
	return 1
}

// Moves says how many queued tasks would begin sooner on another infrastructure:
// as many as have room there, where they have none at home.
func Moves(from, to Candidate) int {
	if from.Queued == 0 || from.room() > 0 {
		return 0
	}
	return min(from.Queued, to.room())
}

// Move lets a task that waits, and was never tried, wait on another
// infrastructure. share is what it shares room as there.
func (l *Life) Move(to, share, why string, now time.Time) []Event {
	if l.Task.State != StateQueued || l.Task.CancelledAt != nil || len(l.Attempts) > 0 || !slices.Contains(l.Among, to) {
		return nil
	}
	from := l.Task.Infrastructure
	l.Task.Infrastructure, l.Task.Spec.Infrastructure, l.Share = to, to, share
	l.NotBefore, l.Task.Diagnosis, l.Task.Reason = time.Time{}, nil, nil
	return []Event{l.event(EventQueued, now, fmt.Sprintf("on %s, moved from %s: %s", to, from, why))}
}
