package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// manyCalls is how many calls of one place in a program are shown, a line each.
const manyCalls = 8

// The colours of calls, as terminals have them.
const (
	red, green, yellow, dim, plainColour = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
)

// place is where in a program calls are made, and of what.
type place struct {
	path, name string
	calls      []berth.RunCall
}

// runTree draws the calls of a run as a tree of the functions that make them.
// Calls come in the order in which they began.
func runTree(run *berth.Run, calls []berth.RunCall, colours bool) []string {
	lines := []string{runLine(run)}
	var places []*place
	byKey := map[string]*place{}
	for _, c := range calls {
		if c.State == berth.CallPrinted {
			continue
		}
		key, _, _ := cutLast(c.Key, "#")
		p := byKey[key]
		if p == nil {
			path, _, _ := cutLast(key, ":")
			p = &place{path: path, name: c.Name}
			byKey[key] = p
			places = append(places, p)
		}
		p.calls = append(p.calls, c)
	}
	var open []string
	for _, p := range places {
		slices.SortFunc(p.calls, func(a, b berth.RunCall) int { return numberOf(&a) - numberOf(&b) })
		path := strings.Split(p.path, "/")
		shared := 0
		for shared < len(open) && shared < len(path) && open[shared] == path[shared] {
			shared++
		}
		for i := shared; i < len(path); i++ {
			lines = append(lines, strings.Repeat("  ", i+1)+clean(path[i]))
		}
		open = path
		lines = append(lines, p.lines(strings.Repeat("  ", len(path)+1), colours)...)
	}
	return lines
}

// runLine says how a run stands.
func runLine(run *berth.Run) string {
	end := time.Now()
	if run.FinishedAt != nil {
		end = *run.FinishedAt
	}
	begin := run.CreatedAt
	if run.ResumedAt != nil {
		begin = *run.ResumedAt
	}
	text := fmt.Sprintf("run %s  %s  %s  %s", run.ID, oneLine(run.Workflow), run.State, took(end.Sub(begin)))
	if run.CancelledAt != nil && !run.State.Terminal() {
		text += "  being cancelled"
	}
	if run.Reason != nil && !run.State.Terminal() {
		text += "  " + oneLine(*run.Reason)
	}
	return text
}

func (p *place) lines(indent string, colours bool) []string {
	var lines []string
	if len(p.calls) <= manyCalls {
		for i := range p.calls {
			lines = append(lines, indent+callLine(&p.calls[i], colours))
		}
		return lines
	}
	counts := map[berth.CallState]int{}
	var told []berth.RunCall // that need somebody's eye
	for _, c := range p.calls {
		counts[c.State]++
		if c.State == berth.CallFailed || c.State == berth.CallRunning && c.Cause != nil {
			told = append(told, c)
		}
	}
	var words []string
	for _, state := range berth.CallStates {
		if n := counts[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	lines = append(lines, fmt.Sprintf("%s%s  %d calls: %s", indent, clean(p.name), len(p.calls), strings.Join(words, ", ")))
	slices.SortStableFunc(told, func(a, b berth.RunCall) int { return strings.Compare(string(a.State), string(b.State)) }) // failed ones first
	const most = 3
	for i := range told[:min(len(told), most)] {
		lines = append(lines, indent+"  "+callLine(&told[i], colours))
	}
	return lines
}

// callLine says how a call stands.
func callLine(c *berth.RunCall, colours bool) string {
	sign, colour := "●", ""
	switch {
	case c.State == berth.CallSucceeded:
		sign, colour = "✓", green
	case c.State == berth.CallFailed:
		sign, colour = "✗", red
	case c.State == berth.CallCancelled:
		sign, colour = "⊘", dim
	case c.Cause != nil:
		sign, colour = "●", yellow
	case c.TaskState != nil && *c.TaskState != berth.StateRunning:
		sign, colour = "○", dim
	}
	if colours && colour != "" {
		sign = colour + sign + plainColour
	}
	return sign + " " + callName(c) + "  " + callStanding(c)
}

// callName is what a call is called, with its number where there are several.
func callName(c *berth.RunCall) string {
	if c.Label != nil {
		return oneLine(*c.Label)
	}
	_, number, _ := cutLast(c.Key, "#")
	return oneLine(c.Name + " #" + number)
}

// callStanding says how a call stands, where, and since when.
func callStanding(c *berth.RunCall) string {
	state := string(c.State)
	if c.TaskState != nil && !c.State.Ended() {
		state = string(*c.TaskState)
	}
	end := time.Now()
	if c.EndedAt != nil {
		end = *c.EndedAt
	}
	words := []string{state, took(max(end.Sub(c.BeganAt), 0))}
	if c.Infrastructure != nil {
		words = append(words, "on "+*c.Infrastructure)
	}
	if c.Cached != nil {
		words = append(words, "cached, of task "+*c.Cached)
	}
	if c.Cause != nil && !c.State.Ended() {
		words = append(words, string(*c.Cause)+":")
	}
	if c.Reason != nil {
		words = append(words, oneLine(*c.Reason))
	}
	return strings.Join(words, "  ")
}

// numberOf is how often what is called was called from that place by then.
func numberOf(c *berth.RunCall) int {
	_, number, _ := cutLast(c.Key, "#")
	n, _ := strconv.Atoi(number)
	return n
}

// cutLast cuts a text around the last separator in it.
func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}
