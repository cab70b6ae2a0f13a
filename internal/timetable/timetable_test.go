package timetable

import (
	"strings"
	"testing"
	"time"
)

// due lists the times at which something is due after another, as RFC 3339 has
// them with the zone's offset.
func due(t *testing.T, expression, zone, after string, n int) []string {
	t.Helper()
	table, err := Parse(expression, zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339, after)
	if err != nil {
		t.Fatal(err)
	}
	var times []string
	for range n {
		next := table.Next(at)
		if !next.After(at) {
			t.Fatalf("%s: %s does not come after %s", expression, next, at)
		}
		at = next
		times = append(times, at.Format(time.RFC3339))
	}
	return times
}

func TestWhenSomethingIsDue(t *testing.T) {
	for _, tt := range []struct {
		expression, zone, after string
		want                    string
	}{
		{"0 6 * * *", "", "2026-01-02T03:04:05Z", "2026-01-02T06:00:00Z 2026-01-03T06:00:00Z"},
		{"0 6 * * *", "Europe/Amsterdam", "2026-01-02T05:00:00Z", "2026-01-03T06:00:00+01:00 2026-01-04T06:00:00+01:00"},
		{"*/20 * * * *", "", "2026-01-02T03:04:05Z", "2026-01-02T03:20:00Z 2026-01-02T03:40:00Z 2026-01-02T04:00:00Z"},
		{"30 8 * * 1-5", "", "2026-01-02T09:00:00Z", "2026-01-05T08:30:00Z 2026-01-06T08:30:00Z"}, // a Friday
		{"0 0 29 2 *", "", "2026-01-02T09:00:00Z", "2028-02-29T00:00:00Z"},
		{"@daily", "Asia/Kolkata", "2026-01-02T09:00:00Z", "2026-01-03T00:00:00+05:30"},
		{"@hourly", "Asia/Kolkata", "2026-01-02T09:00:00Z", "2026-01-02T15:00:00+05:30 2026-01-02T16:00:00+05:30"},
		{"0 12 1 * *", "Pacific/Kiritimati", "2026-01-02T09:00:00Z", "2026-02-01T12:00:00+14:00"},

		// Amsterdam's clocks go from 02:00 to 03:00 on 29 March 2026.
		{"30 2 * * *", "Europe/Amsterdam", "2026-03-28T00:00:00Z", "2026-03-28T02:30:00+01:00 2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00"},
		{"0 2 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z", "2026-03-29T03:00:00+02:00 2026-03-30T02:00:00+02:00"},
		{"0 3 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z", "2026-03-29T03:00:00+02:00 2026-03-30T03:00:00+02:00"},
		{"0 6 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z", "2026-03-29T06:00:00+02:00"},
		{"30 * * * *", "Europe/Amsterdam", "2026-03-29T00:00:00Z", "2026-03-29T01:30:00+01:00 2026-03-29T03:30:00+02:00 2026-03-29T04:30:00+02:00"},

		// And from 03:00 back to 02:00 on 25 October 2026.
		{"30 2 * * *", "Europe/Amsterdam", "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"30 2 * * *", "Europe/Amsterdam", "2026-10-25T00:45:00Z", "2026-10-26T02:30:00+01:00"},
		{"50 2 * * *", "Europe/Amsterdam", "2026-10-25T01:20:00Z", "2026-10-26T02:50:00+01:00"}, // 02:20, for the second time
		{"30 * * * *", "Europe/Amsterdam", "2026-10-25T00:00:00Z", "2026-10-25T02:30:00+02:00 2026-10-25T02:30:00+01:00 2026-10-25T03:30:00+01:00"},
		{"*/30 * * * *", "Europe/Amsterdam", "2026-10-25T00:10:00Z", "2026-10-25T02:30:00+02:00 2026-10-25T02:00:00+01:00 2026-10-25T02:30:00+01:00 2026-10-25T03:00:00+01:00"},

		// Midnight is not there on 16 October 2016 in Sao Paulo, and a whole day is
		// not on Samoa, which went over the date line.
		{"0 0 * * *", "America/Sao_Paulo", "2016-10-15T12:00:00Z", "2016-10-16T01:00:00-02:00 2016-10-17T00:00:00-02:00"},
		{"0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-29T12:00:00-10:00 2011-12-31T00:00:00+14:00 2011-12-31T12:00:00+14:00"},
		// Half an hour, on Lord Howe Island.
		{"10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T02:30:00+11:00 2026-10-05T02:10:00+11:00"},
	} {
		want := strings.Fields(tt.want)
		if got := due(t, tt.expression, tt.zone, tt.after, len(want)); strings.Join(got, " ") != tt.want {
			t.Errorf("%s in %s after %s:\n%s, want\n%s", tt.expression, tt.zone, tt.after, strings.Join(got, " "), tt.want)
		}
	}
}

func TestWhatIsNoTimetable(t *testing.T) {
	for _, tt := range []struct{ expression, zone, want string }{
		{"0 6 * *", "", "has 4 fields: it takes five"},
		{"0 0 6 * * *", "", "has 6 fields: it takes five"},
		{"", "", "has 0 fields"},
		{"61 6 * * *", "", "61"},
		{"0 6 31 2 *", "", "never due"},
		{"0 6 * * *", "Europe/Amsterdm", `"Europe/Amsterdm" is not known`},
		{"0 6 * * *", "Local", "a server's own may differ"},
		{"TZ=UTC 6 * * *", "", "an option of its own"},
		{"@every 5m", "", "fields"},
		{"@sometimes", "", "@sometimes"},
	} {
		if _, err := Parse(tt.expression, tt.zone); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q in %q: %v, want %q", tt.expression, tt.zone, err, tt.want)
		}
	}
}

// What is due never comes twice, never goes back, and is what clocks show but
// where they were set.
func FuzzNext(f *testing.F) {
	f.Add("30 2 * * *", "Europe/Amsterdam", int64(1_774_700_000))
	f.Add("*/7 */3 1,15 * 0", "America/New_York", int64(1_762_000_000))
	f.Add("@hourly", "Australia/Lord_Howe", int64(1_775_000_000))
	f.Fuzz(func(t *testing.T, expression, zone string, from int64) {
		table, err := Parse(expression, zone)
		if err != nil || from < 0 || from > 4_000_000_000 {
			return
		}
		at := time.Unix(from, 0)
		for range 5 {
			next := table.Next(at)
			if next.IsZero() {
				return
			}
			if !next.After(at) {
				t.Fatalf("%q in %q: %s after %s", expression, zone, next, at)
			}
			at = next
		}
	})
}
