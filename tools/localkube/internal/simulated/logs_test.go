package simulated

import (
	"net/url"
	"testing"
	"time"
)

func TestRenderGivesWhatIsAskedFor(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	lines := []line{{now.Add(-time.Minute), "first"}, {now.Add(-time.Second), "second"}}
	for query, want := range map[string]string{
		"":                               "first\nsecond\n",
		"follow=true":                    "first\nsecond\n",
		"timestamps=true&tailLines=1":    "2026-01-01T11:59:59Z second\n",
		"tailLines=0":                    "",
		"tailLines=9":                    "first\nsecond\n",
		"sinceSeconds=30":                "second\n",
		"sinceTime=2026-01-01T11:59:59Z": "second\n",
		"sinceTime=2026-01-01T12:00:00Z": "",
		"limitBytes=3":                   "fir",
	} {
		options, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := render(lines, options, now); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", query, got, err, want)
		}
	}
}

func TestRenderRefusesWhatIsNoNumber(t *testing.T) {
	for _, query := range []string{"tailLines=-1", "tailLines=all", "limitBytes=x", "sinceSeconds=x", "sinceTime=yesterday"} {
		options, _ := url.ParseQuery(query)
		if text, err := render(log, options, time.Now()); err == nil {
			t.Errorf("%q: %q", query, text)
		}
	}
}
