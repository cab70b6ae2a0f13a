package drivertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
)

// raw reads a pod's log as the driver gives it.
func (s *trial) raw(order engine.Order, since time.Time) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patient)
	defer cancel()
	stream, err := s.driver.Logs(ctx, order.Pod, since, false)
	if err != nil {
		s.t.Fatalf("the log of %s: %v", order.Pod, err)
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		s.t.Fatalf("the log of %s: %v", order.Pod, err)
	}
	return string(data)
}

// output is a pod's log without times.
func (s *trial) output(order engine.Order) string {
	s.t.Helper()
	_, text := parse(s.t, s.raw(order, time.Time{}))
	return text
}

// content is a line without its time.
func content(line string) string {
	_, _, text, _ := agent.CutLine([]byte(line))
	return string(text)
}

// parse takes the times off a log's lines.
func parse(t *testing.T, raw string) (times []time.Time, text string) {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(raw) {
		stamp, _, content, ok := agent.CutLine([]byte(line))
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if !ok || err != nil {
			t.Fatalf("a line begins without a time: %.100q", line)
		}
		if _, offset := at.Zone(); offset != 0 {
			t.Errorf("the time %s is not UTC", stamp)
		}
		times = append(times, at)
		out.Write(content)
	}
	return times, out.String()
}

func log(t *testing.T, h Harness) {
	t.Run("lines have times and are in order", func(t *testing.T) {
		s := begin(t, h)
		began := time.Now().Add(-10 * time.Second)
		order := s.shell("for i in 1 2 3 4 5; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done")
		s.run(order)
		times, text := parse(t, s.raw(order, time.Time{}))
		var want strings.Builder
		for i := 1; i <= 5; i++ {
			fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
		}
		if diff := cmp.Diff(want.String(), text); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for i, at := range times {
			if at.Before(began) || at.After(time.Now().Add(10*time.Second)) || i > 0 && at.Before(times[i-1]) {
				t.Errorf("line %d is of %s", i, at)
			}
		}
	})

	t.Run("all of much", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
		s.run(order)
		var want strings.Builder
		for i := range 20000 {
			fmt.Fprintf(&want, "line %d\n", i)
		}
		if got := s.output(order); got != want.String() {
			t.Errorf("%d bytes, want %d", len(got), want.Len())
		}
	})

	t.Run("no newline at the end", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("echo first; printf last")
		s.run(order)
		if got := s.output(order); got != "first\nlast" {
			t.Errorf("%q", got)
		}
	})

	t.Run("long lines", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("head -c 16384 /dev/zero | tr '\\0' a; echo; head -c 100000 /dev/zero | tr '\\0' b; echo; echo short")
		s.run(order)
		times, text := parse(t, s.raw(order, time.Time{}))
		want := strings.Repeat("a", 16384) + "\n" + strings.Repeat("b", 100000) + "\nshort\n"
		if text != want || len(times) != 3 {
			t.Errorf("%d lines of %d bytes, want 3 of %d", len(times), len(text), len(want))
		}
	})

	t.Run("bytes that are no text", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell(`printf 'Gr\303\274\303\237e \033[1m\r\t<&>\n'`)
		s.run(order)
		if got, want := s.output(order), "Grüße \x1b[1m\r\t<&>\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})

	t.Run("from a time on", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("echo early; sleep 2.5; echo late; sleep 0.1; echo later")
		s.run(order)
		times, _ := parse(t, s.raw(order, time.Time{}))
		if len(times) != 3 {
			t.Fatalf("%d lines", len(times))
		}
		if _, text := parse(t, s.raw(order, times[1])); text != "late\nlater\n" {
			t.Errorf("from %s on: %q", times[1], text)
		}
		if _, text := parse(t, s.raw(order, time.Now().Add(time.Hour))); text != "" {
			t.Errorf("of the future: %q", text)
		}
	})

	t.Run("following to the end", func(t *testing.T) {
		s := begin(t, h)
		order := s.shell("echo first; while ! test -e /tmp/go; do sleep 0.1; test $((n=n+1)) -gt 20 && touch /tmp/go; done; echo second; printf last")
		s.create(order)
		s.running(order)
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		stream, err := s.driver.Logs(ctx, order.Pod, time.Time{}, true)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		reader := bufio.NewReader(stream)
		line, err := reader.ReadString('\n')
		if err != nil || content(line) != "first\n" {
			t.Fatalf("%q, %v", line, err)
		}
		ended := false
		s.sink.until(t, "anything", func(v *view) bool { ended = v.pods[order.Pod].Outcome != nil; return true })
		if ended {
			t.Error("the first line came after the end")
		}
		if line, err = reader.ReadString('\n'); err != nil || content(line) != "second\n" {
			t.Fatalf("%q, %v", line, err)
		}
		rest := make([]byte, 4096)
		n, _ := io.ReadAtLeast(reader, rest, len("2006-01-02T15:04:05Z last"))
		if content(string(rest[:n])) != "last" {
			t.Errorf("%q", rest[:n])
		}
	})

	t.Run("a log that isn't there", func(t *testing.T) {
		s := begin(t, h)
		if stream, err := s.driver.Logs(t.Context(), s.shell("").Pod, time.Time{}, false); refused(err) != engine.RefusedNotFound {
			t.Errorf("%v, %v", stream, err)
		}
	})
}
