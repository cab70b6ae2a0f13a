package logs

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/berth-run/berth"
)

// at is a time in microseconds.
func at(us int) string { return fmt.Sprintf("2026-01-02T03:04:05.%06dZ", us) }

// A runtime that begins a new file cuts the line that it is in, and the first
// times of the new file may be before the last one of the old.
func TestALogThatIsRotatedBetweenTwoStreamsIsWhole(t *testing.T) {
	old := at(100) + " one\n" + at(200) + " two\n" + at(300) + " thr"
	next := at(290) + " ee\n" + at(299) + " four\n" + at(400) + " five\n"
	s := newStore(t)
	appendTo(t, s, strings.NewReader(old), strings.NewReader(next))
	if got, want := read(t, s, berth.LogQuery{}), "one\ntwo\nthree\nfour\nfive\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestANewFileThatBeginsLaterIsToldAtOnce(t *testing.T) {
	s := newStore(t)
	followed, feed := io.Pipe()
	w := appendTo(t, s, strings.NewReader(at(100)+" one\n"))
	done := make(chan error)
	go func() { done <- w.Copy(followed, true) }()
	changed := s.Changed("task", 1)
	if _, err := io.WriteString(feed, at(200)+" two\n"); err != nil {
		t.Fatal(err)
	}
	<-changed // although the stream goes on
	if got := read(t, s, berth.LogQuery{}); got != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What was in the old file behind the place where the stream broke, nobody has.
func TestALogThatIsRotatedWhileItCouldNotBeReadHasAGap(t *testing.T) {
	s := newStore(t)
	broken := io.MultiReader(strings.NewReader(at(100)+" one\n"+at(200)+" tw"), iotest.ErrReader(errors.New("cut")))
	appendTo(t, s, broken, strings.NewReader(at(900)+" nine\n"))
	if got, want := read(t, s, berth.LogQuery{}), "one\n<output between 2026-01-02T03:04:05.0001Z and 2026-01-02T03:04:05.0009Z may be missing: the log was rotated before it could be read>nine\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// stdout and stderr are written by two threads of a runtime, not in the order of their times.
func TestTheSameFileAgainIsKnownByItsLastLine(t *testing.T) {
	all := at(100) + " one\n" + at(300) + " three\n" + at(200) + " two\n"
	s := newStore(t)
	appendTo(t, s, strings.NewReader(all), strings.NewReader(all+at(150)+" late\n"+at(400)+" four\n"))
	if got, want := read(t, s, berth.LogQuery{}), "one\nthree\ntwo\nlate\nfour\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A line that is longer than what is read at once comes in pieces, and is left
// out, or taken back, as a whole.
func TestALongLineThatComesAgainIsLeftOut(t *testing.T) {
	long := at(200) + " " + strings.Repeat("x", 3*maxLine) + "\n"
	all := at(100) + " one\n" + long
	for _, end := range []int{len(all), len(all) - maxLine, len(all) - 1} {
		s := newStore(t)
		appendTo(t, s, strings.NewReader(all[:end]), strings.NewReader(all+at(300)+" three\n"))
		if got, want := read(t, s, berth.LogQuery{}), "one\n"+strings.Repeat("x", 3*maxLine)+"\nthree\n"; got != want {
			t.Errorf("read up to %d of %d first: %d bytes, want %d", end, len(all), len(got), len(want))
		}
	}
}
