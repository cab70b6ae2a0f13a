package logs

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// arrival is lines that arrive at a time.
type arrival struct {
	at   time.Duration // after the beginning
	text string
}

// arriving is a stream whose reads move a clock.
type arriving struct {
	begin time.Time
	clock *time.Time
	rest  []arrival
}

func (r *arriving) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	*r.clock = r.begin.Add(r.rest[0].at)
	n := copy(p, r.rest[0].text)
	if r.rest[0].text = r.rest[0].text[n:]; r.rest[0].text == "" {
		r.rest = r.rest[1:]
	}
	return n, nil
}

// A kubelet that is behind leaves whole files out of a stream, and doesn't say
// so. Where that may have been a gap is noted, and only there.
func TestAFileThatAStreamLeavesOutIsAGap(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := func(at time.Duration, text string) string {
		return begin.Add(at).Format(time.RFC3339Nano) + " " + text + "\n"
	}
	much := strings.Repeat(line(time.Second, strings.Repeat("x", 1000)), 9<<10) // a log that is rotated
	const s = time.Second
	for name, tt := range map[string]struct {
		rest     []arrival
		constant bool // a stream of one file
		want     bool
	}{
		"a reader that was as far behind":           {[]arrival{{s, much}, {15 * s, line(2*s, "a")}, {15 * s, line(12*s, "b")}}, false, true},
		"both in one read":                          {[]arrival{{s, much}, {15 * s, line(2*s, "a") + line(12*s, "b")}}, false, true},
		"one that noticed late":                     {[]arrival{{s, much}, {2 * s, line(2*s, "a")}, {13 * s, line(12*s, "b")}}, false, true},
		"a program that was silent":                 {[]arrival{{s, much}, {2 * s, line(2*s, "a")}, {12 * s, line(12*s, "b")}}, false, false},
		"silent, on a node whose clock is behind":   {[]arrival{{31 * s, much}, {32 * s, line(2*s, "a")}, {42 * s, line(12*s, "b")}}, false, true}, // it may have been; nobody can tell
		"a reader that is behind, and no pause":     {[]arrival{{s, much}, {15 * s, line(2*s, "a")}, {15 * s, line(4*s, "b")}}, false, false},
		"a short log":                               {[]arrival{{s, line(s, "x")}, {15 * s, line(2*s, "a")}, {15 * s, line(12*s, "b")}}, false, false},
		"a stream that can't leave anything out":    {[]arrival{{s, much}, {15 * s, line(2*s, "a")}, {15 * s, line(12*s, "b")}}, true, false},
		"what was there when the stream was opened": {[]arrival{{20 * s, much}, {20 * s, line(2*s, "a")}, {20 * s, line(12*s, "b")}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			w := appendTo(t, store)
			clock := begin
			if strings.HasPrefix(name, "what was there") {
				clock = begin.Add(20 * s)
			}
			w.pace.now = func() time.Time { return clock }
			if err := w.Copy(&arriving{begin, &clock, tt.rest}, !tt.constant); err != nil {
				t.Fatal(err)
			}
			got := read(t, store, berth.LogQuery{Tail: 2})
			gap := "<output between 2026-01-02T03:04:07Z and 2026-01-02T03:04:17Z may be missing: the log was rotated before it could be read>"
			if want := map[bool]string{true: "a\n" + gap + "b\n", false: "a\nb\n"}[tt.want]; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// The last file of a log that ended may have nothing that was not read, and
// where the reader was behind, the one before is lost.
func TestALogWhoseLastFilesNobodyReadHasAGapAtItsEnd(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	much := strings.Repeat(begin.Add(time.Second).Format(time.RFC3339Nano)+" "+strings.Repeat("x", 1000)+"\n", 9<<10)
	for arrives, want := range map[time.Duration]bool{2 * time.Second: false, 20 * time.Second: true} {
		s := newStore(t)
		w := appendTo(t, s)
		clock := begin
		w.pace.now = func() time.Time { return clock }
		if err := w.Copy(&arriving{begin, &clock, []arrival{{arrives, much}}}, true); err != nil {
			t.Fatal(err)
		}
		if err := w.Copy(strings.NewReader(""), true); err != nil {
			t.Fatal(err)
		}
		if err := w.Seal(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, berth.LogQuery{Tail: 1}); strings.Contains(got, "may be missing") != want {
			t.Errorf("read %s late: %.200q", arrives, got[max(0, len(got)-200):])
		}
	}
}

// A kubelet leaves a file as soon as the next one is begun, and the runtime may
// have the program's last lines to write to it yet: then the newest file has
// nothing, as it has where the program had said all before.
func TestALogThatWasRotatedAsItsProgramEndedHasAGapAtItsEnd(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	last := begin.Add(1900 * time.Millisecond)
	line := last.Format(time.RFC3339Nano) + " " + strings.Repeat("x", 1000) + "\n"
	for name, tt := range map[string]struct {
		lines int
		ended time.Duration // by a status, which has whole seconds
		rest  string        // in the newest file
		want  bool
	}{
		"at once":                          {9 << 10, time.Second, "", true},
		"within the next second":           {9 << 10, 2 * time.Second, "", true},
		"on a node that is slow":           {9 << 10, 4 * time.Second, "", true},
		"after a silence":                  {9 << 10, 12 * time.Second, "", false},
		"at once, of a file that goes on":  {9 << 10, time.Second, line, false},
		"at once, too short to be rotated": {9, time.Second, "", false},
		"nobody knows when":                {9 << 10, -1, "", false},
	} {
		s := newStore(t)
		w := appendTo(t, s)
		clock := begin
		w.pace.now = func() time.Time { return clock }
		if err := w.Copy(&arriving{begin, &clock, []arrival{{1900 * time.Millisecond, strings.Repeat(line, tt.lines)}}}, true); err != nil {
			t.Fatal(err)
		}
		if tt.ended >= 0 {
			w.Ended(begin.Add(tt.ended))
		}
		if err := w.Copy(strings.NewReader(tt.rest), true); err != nil {
			t.Fatal(err)
		}
		if w.Unjoined() != tt.want {
			t.Errorf("%s: asked once more: %t, want %t", name, w.Unjoined(), tt.want)
		}
		if err := w.Seal(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, berth.LogQuery{Tail: 1}); strings.Contains(got, "to its end may be missing") != tt.want {
			t.Errorf("%s: %.200q", name, got[max(0, len(got)-200):])
		}
	}
}

// A runtime that can't keep up gives up on the rest of a program that has ended.
// Most short outputs without a newline are whole.
func TestALongLogThatEndsWithinALineMayLackItsEnd(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := begin.Format(time.RFC3339Nano) + " " + strings.Repeat("x", 1000) + "\n"
	for name, tt := range map[string]struct {
		text  string
		ended time.Duration
		want  bool
	}{
		"long":                      {strings.Repeat(line, 9<<10) + line[:100], time.Second, true},
		"long, with its last line":  {strings.Repeat(line, 9<<10), time.Second, false},
		"long, and silent since":    {strings.Repeat(line, 9<<10) + line[:100], 20 * time.Second, false},
		"short":                     {line + line[:100], time.Second, false},
		"of one line, however long": {line[:100] + strings.Repeat("x", 9<<20), time.Second, false},
	} {
		s := newStore(t)
		w := appendTo(t, s, strings.NewReader(tt.text))
		w.Ended(begin.Add(tt.ended))
		if err := w.Copy(strings.NewReader(tt.text), true); err != nil { // as it is read once more
			t.Fatal(err)
		}
		if err := w.Seal(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, berth.LogQuery{Tail: 2}); strings.Contains(got, "the log ends within a line") != tt.want {
			t.Errorf("%s: %.200q", name, got[max(0, len(got)-200):])
		}
	}
}

func TestAFileBetweenTwoStreamsThatWasLeftOutIsAGap(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := func(at time.Duration, text string) string {
		return begin.Add(at).Format(time.RFC3339Nano) + " " + text + "\n"
	}
	much := strings.Repeat(line(time.Second, strings.Repeat("x", 1000)), 9<<10)
	for next, want := range map[time.Duration]string{
		4 * time.Second:  "a\nb\n",
		12 * time.Second: "a\n<output between 2026-01-02T03:04:07Z and 2026-01-02T03:04:17Z may be missing: the log was rotated before it could be read>b\n",
	} {
		s := newStore(t)
		appendTo(t, s, strings.NewReader(much+line(2*time.Second, "a")), strings.NewReader(line(next, "b")))
		if got := read(t, s, berth.LogQuery{Tail: 2}); got != want {
			t.Errorf("%s: %q, want %q", next, got, want)
		}
	}
}
