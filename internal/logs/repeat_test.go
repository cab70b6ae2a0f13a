package logs

import (
	"strings"
	"testing"

	"github.com/berth-run/berth"
)

// filled is the lines of a log that is long enough to have been rotated.
func filled(lines ...string) string {
	return strings.Repeat(at(1)+" "+strings.Repeat("x", 1000)+"\n", 9<<10) + strings.Join(lines, "")
}

// A kubelet that is told of two new files one after the other opens the second
// one twice, and gives it from its beginning again.
func TestAFileThatAStreamGivesTwiceIsStoredOnce(t *testing.T) {
	one, two, three, four, five := at(100)+" one\n", at(200)+" two\n", at(200)+" two\n", at(400)+" four\n", at(500)+" five\n"
	for name, tt := range map[string]struct{ stream, want string }{
		"all of it, and then more":               {one + two + four + two + four + five, "one\ntwo\nfour\nfive\n"},
		"from the very beginning":                {one + two + four + one + two + four + five, "one\ntwo\nfour\nfive\n"},
		"twice":                                  {one + two + four + two + four + two + four + five, "one\ntwo\nfour\nfive\n"},
		"cut in the middle of it":                {one + two + four + two, "one\ntwo\nfour\n"},
		"lines that are like each other":         {one + two + three + four + two + three + four + five, "one\ntwo\ntwo\nfour\nfive\n"},
		"lines out of order are no repetition":   {one + four + at(300) + " three\n" + five, "one\nfour\nthree\nfive\n"},
		"what is said again at the same time is": {one + two + two + two + five, "one\ntwo\ntwo\ntwo\nfive\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			appendTo(t, s, strings.NewReader(filled()+tt.stream))
			if got := read(t, s, berth.LogQuery{Tail: strings.Count(tt.want, "\n")}); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			all := read(t, s, berth.LogQuery{})
			if got := strings.Count(all, "\n"); got != 9<<10+strings.Count(tt.want, "\n") {
				t.Errorf("%d lines", got)
			}
		})
	}
}

// More lines than are remembered, and what comes again of them is the newest.
func TestWhatComesAgainIsKnownInALongLog(t *testing.T) {
	var all strings.Builder
	const lines = 3*remembered + 17
	for i := range lines {
		all.WriteString(at(i%1_000_000) + " a line of a program that prints much, and of which each differs\n")
	}
	text := all.String()
	size := len(text) / lines
	s := newStore(t)
	appendTo(t, s, strings.NewReader(text+text[len(text)-remembered/2*size:]+at(999_999)+" end\n"))
	if got := strings.Count(read(t, s, berth.LogQuery{}), "\n"); got != lines+1 {
		t.Errorf("%d lines, want %d", got, lines+1)
	}
}
