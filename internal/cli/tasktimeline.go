package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/berth-run/berth"
)

// timeline writes what happened, each with the time since the event before,
// and each attempt on its own where there were several.
func timeline(w io.Writer, events []berth.Event) {
	if len(events) == 0 {
		return
	}
	several := false
	for _, e := range events {
		several = several || e.Attempt > 1
	}
	fmt.Fprintf(w, "\nTimeline (from %s on):\n", utc(events[0].At))
	const what = 15 // columns of an event's name
	attempt, before := 0, events[0].At
	for _, e := range events {
		if several && e.Attempt > 0 && e.Attempt != attempt {
			attempt = e.Attempt
			fmt.Fprintf(w, "  Attempt %d\n", attempt)
		}
		since := ""
		if d := e.At.Sub(before); d > 0 {
			since = "+" + took(d)
		}
		before = e.At
		start := fmt.Sprintf("    %s %8s  %-*s ", e.At.UTC().Format("15:04:05"), since, what, e.Type)
		hang := fmt.Sprintf("%*s", len(start), "")
		message := wrap(oneLine(e.Message), hang, explainWidth)
		if len(message) >= len(hang) {
			message = message[len(hang):]
		}
		fmt.Fprintln(w, trimRight(start+message))
	}
}

// utc writes a time as people compare it across machines.
func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// took writes a duration with as much as matters: 7ms, 1.2s, 3m10s, 2h5m.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
}
