// Package timetable tells when something is due that happens again and again: by
// a cron expression, as clocks on the wall of a time zone show it.
package timetable

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // machines may have no zones of their own

	"github.com/netresearch/go-cron"
)

// Timetable is a cron expression in a time zone.
type Timetable struct {
	schedule cron.Schedule
	zone     *time.Location
	hourly   bool // it is due in each hour, or each so many, whatever the clock shows
}

// fields are those of an expression: minute, hour, day of the month, month, day
// of the week, as cron has had them since its first days.
var fields = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Parse reads an expression of five fields, or @hourly, @daily, @weekly, @monthly
// or @yearly, and the name of a time zone, such as Europe/Amsterdam; empty is
// UTC. An error says what is wrong with which.
func Parse(expression, zone string) (*Timetable, error) {
	if zone == "Local" {
		return nil, fmt.Errorf("time zone %q: name a zone, such as Europe/Amsterdam: a server's own may differ from yours", zone)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known: use a name such as Europe/Amsterdam or America/New_York, or UTC", zone)
	}
	words := strings.Fields(expression)
	switch {
	case len(words) == 1 && strings.HasPrefix(words[0], "@every"), strings.HasPrefix(expression, "TZ="), strings.HasPrefix(expression, "CRON_TZ="):
		return nil, fmt.Errorf("cron expression %q: use five fields, or @hourly, @daily, @weekly, @monthly or @yearly; the time zone is an option of its own", expression)
	case len(words) != 5 && (len(words) != 1 || !strings.HasPrefix(words[0], "@")):
		return nil, fmt.Errorf("cron expression %q has %d fields: it takes five, minute, hour, day of the month, month and day of the week, such as \"0 6 * * 1-5\"", expression, len(words))
	}
	schedule, err := fields.Parse(expression)
	if err != nil {
		return nil, fmt.Errorf("cron expression %q: %w", expression, err)
	}
	t := &Timetable{schedule: schedule, zone: location, hourly: words[0] == "@hourly" || len(words) == 5 && strings.Contains(words[1], "*")}
	if t.Next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("cron expression %q is never due: there is no such day", expression)
	}
	return t, nil
}

// Next is the first time after another at which it is due, zero where there is
// none within some years.
//
// Where a clock is set ahead, what is due in the hour that there isn't is due at
// once when it was set; where one is set back, what is due in the hour that
// comes twice is due the first time only. What is due in each hour is due as if
// no clock was set. That is how cron does it (cron(8) of Vixie's and ISC's).
func (t *Timetable) Next(after time.Time) time.Time {
	if t.hourly {
		return t.nextHourly(after)
	}
	// What clocks show is reckoned with as if it was UTC, which has no jumps.
	for shown := shownAs(after.In(t.zone)); ; {
		if shown = t.schedule.Next(shown); shown.IsZero() {
			return time.Time{}
		}
		if at := t.first(shown); at.After(after) {
			return at.In(t.zone)
		}
	}
}

// nextHourly is Next for what is due in each hour: minutes are looked at one
// after the other, which is at most a few thousand for what is due on one day of
// a month, and days at once.
func (t *Timetable) nextHourly(after time.Time) time.Time {
	at := after.Truncate(time.Minute).Add(time.Minute)
	for {
		shown := shownAs(at.In(t.zone))
		next := t.schedule.Next(shown.Add(-time.Second))
		switch {
		case next.IsZero():
			return time.Time{}
		case next.Equal(shown):
			return at.In(t.zone)
		}
		// Not beyond it, whichever way the clock is set on the way.
		at = at.Add(max(time.Minute, (next.Sub(shown) - 3*time.Hour).Truncate(time.Minute)))
	}
}

// first is the first time at which clocks of the zone show something, or have
// been set beyond it.
func (t *Timetable) first(shown time.Time) time.Time {
	// No zone's clock is ever further from UTC than 15 hours.
	low, high := shown.Add(-15*time.Hour), shown.Add(15*time.Hour)
	offsets := map[int]bool{}
	for _, at := range []time.Time{low, shown, high} {
		_, offset := at.In(t.zone).Zone()
		offsets[offset] = true
	}
	var first time.Time
	for offset := range offsets {
		at := shown.Add(-time.Duration(offset) * time.Second)
		if shownAs(at.In(t.zone)).Equal(shown) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if !first.IsZero() {
		return first.In(t.zone)
	}
	// They never show it: the time at which they were set beyond it.
	for high.Sub(low) > time.Second {
		middle := low.Add(high.Sub(low) / 2).Truncate(time.Second)
		if shownAs(middle.In(t.zone)).Before(shown) {
			low = middle
		} else {
			high = middle
		}
	}
	return high.In(t.zone)
}

// shownAs is what a clock shows at a time, as a time in UTC.
func shownAs(at time.Time) time.Time {
	return time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
}
