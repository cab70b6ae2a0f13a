package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/berth-run/berth"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stamp(n int) string { return fmt.Sprintf("2026-01-02T03:04:%02d.%09dZ", n/10, n) }

func lines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%s line %d\n", stamp(i), i)
	}
	return b.String()
}

func contents(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func read(t *testing.T, s *Store, q berth.LogQuery) string {
	t.Helper()
	var b strings.Builder
	for chunk, err := range s.Read(context.Background(), "task", 1, q, func() bool { return true }) {
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Gap != "" {
			b.WriteString("<" + chunk.Gap + ">")
		}
		b.Write(chunk.Data)
	}
	return b.String()
}

func appendTo(t *testing.T, s *Store, streams ...io.Reader) *Writer {
	t.Helper()
	w, err := s.Append("task", 1, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	for _, r := range streams {
		var broken *StreamError
		if err := w.Copy(r, true); err != nil && !errors.As(err, &broken) {
			t.Fatal(err)
		}
	}
	return w
}

func TestAStreamThatBeginsAgainDoublesNothing(t *testing.T) {
	cut := func(text string, at int) io.Reader {
		return io.MultiReader(strings.NewReader(text[:at]), iotest.ErrReader(errors.New("cut")))
	}
	all := lines(0, 50)
	for at := range len(all) {
		s := newStore(t)
		// The second stream begins a little before the first was cut, as the API counts in seconds.
		appendTo(t, s, cut(all, at), strings.NewReader(all[len(lines(0, max(0, strings.Count(all[:at], "\n")-7))):]))
		if got := read(t, s, berth.LogQuery{}); got != contents(0, 50) {
			t.Fatalf("cut after %d bytes:\n%s", at, got)
		}
	}
}

func TestEqualLinesOfOneTimeAreKept(t *testing.T) {
	s := newStore(t)
	same := strings.Repeat(stamp(1)+" tick\n", 3)
	appendTo(t, s, strings.NewReader(same), strings.NewReader(same+stamp(1)+" tick\n"+stamp(2)+" tock\n"))
	if got, want := read(t, s, berth.LogQuery{}), strings.Repeat("tick\n", 4)+"tock\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAWriterGoesOnWhereAKilledOneStopped(t *testing.T) {
	s := newStore(t)
	w := appendTo(t, s, strings.NewReader(lines(0, 5)))
	if _, err := w.plain.file.WriteString(stamp(5) + " li"); err != nil { // killed in the middle of a write
		t.Fatal(err)
	}
	w.Close()
	appendTo(t, s, strings.NewReader(lines(3, 8)))
	if got := read(t, s, berth.LogQuery{}); got != contents(0, 8) {
		t.Errorf("%q", got)
	}
}

func TestTheEndMayLackItsNewline(t *testing.T) {
	s := newStore(t)
	appendTo(t, s, strings.NewReader(stamp(1)+" abc"))
	if got := read(t, s, berth.LogQuery{}); got != "abc" {
		t.Errorf("%q", got)
	}
	s = newStore(t)
	appendTo(t, s, strings.NewReader(stamp(1)+" abc"), strings.NewReader(stamp(1)+" abcdef\n"))
	if got := read(t, s, berth.LogQuery{}); got != "abcdef\n" {
		t.Errorf("after it went on: %q", got)
	}
}

func TestALongLineIsOneLine(t *testing.T) {
	s := newStore(t)
	long := strings.Repeat("x", 700<<10)
	appendTo(t, s, strings.NewReader(stamp(1)+" "+long+"\n"+stamp(2)+" end\n"))
	if got := read(t, s, berth.LogQuery{}); got != long+"\nend\n" {
		t.Errorf("%d bytes", len(got))
	}
}

func TestTailSinceAndTimestamps(t *testing.T) {
	s := newStore(t)
	appendTo(t, s, strings.NewReader(lines(0, 30)))
	if got := read(t, s, berth.LogQuery{Tail: 3}); got != contents(27, 30) {
		t.Errorf("tail: %q", got)
	}
	if got := read(t, s, berth.LogQuery{Tail: 300}); got != contents(0, 30) {
		t.Errorf("a tail longer than the log: %q", got)
	}
	since, _ := time.Parse(time.RFC3339Nano, stamp(20))
	if got := read(t, s, berth.LogQuery{Since: since}); got != contents(20, 30) {
		t.Errorf("since: %q", got)
	}
	if got := read(t, s, berth.LogQuery{Timestamps: true}); got != lines(0, 30) {
		t.Errorf("timestamps: %q", got)
	}
}

func TestAGapIsTold(t *testing.T) {
	s := newStore(t)
	w := appendTo(t, s, strings.NewReader(lines(0, 2)))
	if err := w.Gap("the pod\nis gone"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, berth.LogQuery{}); got != contents(0, 2)+"<the pod is gone>" {
		t.Errorf("%q", got)
	}
}

func TestAReaderFollowsUntilTheLogIsComplete(t *testing.T) {
	s := newStore(t)
	var done atomic.Bool
	got := make(chan string)
	go func() {
		var b strings.Builder
		for chunk, err := range s.Read(context.Background(), "task", 1, berth.LogQuery{Follow: true}, done.Load) {
			if err != nil {
				t.Error(err)
			}
			b.Write(chunk.Data)
		}
		got <- b.String()
	}()
	w := appendTo(t, s)
	for i := range 100 {
		if err := w.Copy(strings.NewReader(lines(i, i+1)), true); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	s.Notify("task", 1)
	if text := <-got; text != contents(0, 100) {
		t.Errorf("%q", text)
	}
}

func TestAReadGoesOnFromAnOffset(t *testing.T) {
	s := newStore(t)
	appendTo(t, s, strings.NewReader(lines(0, 10)))
	var offset int64
	for chunk := range s.Read(context.Background(), "task", 1, berth.LogQuery{}, func() bool { return true }) {
		offset = chunk.Offset
	}
	appendTo(t, s, strings.NewReader(lines(9, 12)))
	if got := read(t, s, berth.LogQuery{Offset: offset}); got != contents(10, 12) {
		t.Errorf("%q", got)
	}
}

func TestWhatTheKubeletSaysInsteadOfALogIsNotOutput(t *testing.T) {
	s := newStore(t)
	w := appendTo(t, s, strings.NewReader(lines(0, 2)))
	var broken *StreamError
	if err := w.Copy(strings.NewReader("unable to retrieve container logs for containerd://1234"), true); !errors.As(err, &broken) {
		t.Errorf("copied: %v", err)
	}
	if got := read(t, s, berth.LogQuery{}); got != contents(0, 2) {
		t.Errorf("%q", got)
	}
}

func FuzzCopy(f *testing.F) {
	f.Add([]byte(lines(0, 3)), 10)
	f.Add([]byte("no time at all\n!gap x\n"), 3)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		s := newStore(t)
		cut = max(0, min(cut, len(data)))
		w := appendTo(t, s, io.MultiReader(strings.NewReader(string(data[:cut])), iotest.ErrReader(io.ErrUnexpectedEOF)))
		var broken *StreamError
		if err := w.Copy(strings.NewReader(string(data)), true); err != nil && !errors.As(err, &broken) {
			t.Fatal(err)
		}
		read(t, s, berth.LogQuery{Follow: true})
	})
}
