package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth"
)

// newFineStore seals in blocks of 16 KiB, so that short logs have many.
func newFineStore(t *testing.T) *Store {
	t.Helper()
	s := newStore(t)
	s.blockSize, s.sealAt = 16<<10, 64<<10
	return s
}

// long is a log of so many lines of about 100 bytes, a millisecond apart.
func long(from, to int) string {
	var b strings.Builder
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%s %060d\n", begin.Add(time.Duration(i)*time.Millisecond).Format(time.RFC3339Nano), i)
	}
	return b.String()
}

func longContents(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%060d\n", i)
	}
	return b.String()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// equal compares without printing megabytes.
func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes, want %d; they differ at %d: %.150q, want %.150q", what, len(got), len(want), at, got[at:], want[at:])
}

func TestALongLogIsSealedWhileItGrowsAndCompleteAtItsEnd(t *testing.T) {
	s := newFineStore(t)
	const n = 5_000
	w := appendTo(t, s, strings.NewReader(long(0, n)))
	info, err := os.Stat(s.path("task", 1))
	if err != nil || info.Size() > s.sealAt+maxReadSize || !exists(s.sealedPath("task", 1)) {
		t.Fatalf("the plain part: %v, %v", info.Size(), err)
	}
	equal(t, "while it is written", read(t, s, berth.LogQuery{}), longContents(0, n))
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	if exists(s.path("task", 1)) {
		t.Error("something is plain still")
	}
	equal(t, "sealed", read(t, s, berth.LogQuery{}), longContents(0, n))

	// Any zstd reads it.
	packed, err := os.ReadFile(s.sealedPath("task", 1))
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	var all bytes.Buffer
	if _, err := all.ReadFrom(decoder); err != nil {
		t.Fatal(err)
	}
	equal(t, "with another program", all.String(), long(0, n))
}

func TestAShortLogStaysPlain(t *testing.T) {
	s := newStore(t)
	w := appendTo(t, s, strings.NewReader(lines(0, 10)))
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	if exists(s.sealedPath("task", 1)) || read(t, s, berth.LogQuery{}) != contents(0, 10) {
		t.Error("it was sealed, or is gone")
	}
}

// A process may die between any two steps of a seal, in the middle of writing a
// block, and before or after the last one: the next one goes on with the same
// log, and readers meanwhile see it whole.
func TestADeathAtEachStepOfSealingLosesAndDoublesNothing(t *testing.T) {
	died := errors.New("died")
	const n, more = 1200, 1400 // the first seal comes in between
	for _, at := range []sealing{sealAppended, sealSynced, sealReplaced} {
		for _, torn := range []int64{0, 1, int64(entrySize), 300} { // bytes of the end that never came to the disk
			for _, all := range []bool{false, true} {
				name := fmt.Sprintf("step %d, %d bytes torn, at the end %v", at, torn, all)
				if at != sealAppended && torn > 0 {
					continue
				}
				s := newFineStore(t)
				w, err := s.Append("task", 1, false)
				if err != nil {
					t.Fatal(err)
				}
				die := func(now sealing) error {
					if now == at {
						return died
					}
					return nil
				}
				if !all {
					s.testSeal = die
				}
				err = w.Copy(strings.NewReader(long(0, n)), true)
				var synced int64 // which nothing tears any more
				if all && err == nil {
					s.testSeal = die
					synced = w.sealed.size
					err = w.Seal()
				}
				if !errors.Is(err, died) {
					t.Fatalf("%s: %v", name, err)
				}
				w.Close()
				if torn > 0 {
					info, err := os.Stat(s.sealedPath("task", 1))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.Truncate(s.sealedPath("task", 1), max(synced, info.Size()-torn)); err != nil {
						t.Fatal(err)
					}
				}
				s.testSeal = nil
				if got := read(t, s, berth.LogQuery{}); !strings.HasPrefix(longContents(0, n), got) || all && len(got) != len(longContents(0, n)) {
					t.Errorf("%s: a reader sees %d bytes, not a part of the log", name, len(got))
				}
				w = appendTo(t, s, strings.NewReader(long(0, more)))
				equal(t, name, read(t, s, berth.LogQuery{}), longContents(0, more))
				if err := w.Seal(); err != nil {
					t.Fatal(err)
				}
				equal(t, name+", sealed", read(t, s, berth.LogQuery{}), longContents(0, more))
			}
		}
	}
}

// What is damaged on the disk is told, with its times, and the rest is there.
func TestDamageIsAGapAndTheRestIsReadable(t *testing.T) {
	const n = 2_400
	all := longContents(0, n)
	for name, damage := range map[string]func(data []byte) []byte{
		"an entry":              func(data []byte) []byte { data[blockAt(data, 3)+20] ^= 1; return data },
		"a block":               func(data []byte) []byte { data[blockAt(data, 3)+entrySize+500] ^= 1; return data },
		"garbage in between":    func(data []byte) []byte { copy(data[blockAt(data, 3)-100:], make([]byte, 700)); return data },
		"the first entry":       func(data []byte) []byte { data[2] ^= 1; return data },
		"the end is missing":    func(data []byte) []byte { return data[:blockAt(data, 5)+100] },
		"nothing but garbage":   func(data []byte) []byte { return make([]byte, len(data)) },
		"the last entry of all": func(data []byte) []byte { return data[:len(data)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFineStore(t)
			w := appendTo(t, s, strings.NewReader(long(0, n)))
			if err := w.Seal(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(s.sealedPath("task", 1))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.sealedPath("task", 1), damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []byte
			gaps, from := 0, 0
			for chunk, err := range s.Read(context.Background(), "task", 1, berth.LogQuery{}, func() bool { return true }) {
				if err != nil {
					t.Fatal(err)
				}
				if chunk.Gap != "" {
					gaps++
					if !strings.Contains(chunk.Gap, "damaged") {
						t.Errorf("gap: %s", chunk.Gap)
					}
				}
				got = append(got, chunk.Data...)
			}
			for line := range strings.Lines(string(got)) {
				at := strings.Index(all[from:], line)
				if at < 0 || len(line) != 61 {
					t.Fatalf("a line that was not written, or comes twice: %q", line)
				}
				from += at + len(line)
			}
			if gaps == 0 || gaps > 2 {
				t.Errorf("%d gaps", gaps)
			}
			if name != "nothing but garbage" && len(got) < len(all)/4 {
				t.Errorf("only %d of %d bytes are left", len(got), len(all))
			}
		})
	}
}

// blockAt is where the nth entry of a sealed part is.
func blockAt(data []byte, n int) int {
	at := 0
	for range n {
		b, err := parseBlock(data[at:], int64(at))
		if err != nil {
			panic(err)
		}
		at = int(b.next())
	}
	return at
}

func TestOffsetsStayWhatTheyAreWhenALogIsSealed(t *testing.T) {
	s := newFineStore(t)
	const n = 5_000
	w := appendTo(t, s, strings.NewReader(long(0, n/2)))
	offsets := map[int64]int{} // how much was given up to an offset
	given := 0
	for chunk := range s.Read(context.Background(), "task", 1, berth.LogQuery{}, func() bool { return true }) {
		given += len(chunk.Data)
		offsets[chunk.Offset] = given
	}
	w.Close()
	w = appendTo(t, s, strings.NewReader(long(0, n)))
	check := func() {
		t.Helper()
		for offset, given := range offsets {
			equal(t, fmt.Sprint("from ", offset), read(t, s, berth.LogQuery{Offset: offset}), longContents(0, n)[given:])
		}
	}
	check()
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	check()
}

func TestAReaderFollowsWhileTheLogIsSealed(t *testing.T) {
	s := newFineStore(t)
	const n = 20_000
	w := appendTo(t, s)
	got := make(chan string)
	done := make(chan struct{})
	go func() {
		var b strings.Builder
		for chunk, err := range s.Read(context.Background(), "task", 1, berth.LogQuery{Follow: true}, func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		}) {
			if err != nil {
				t.Error(err)
			}
			b.Write(chunk.Data)
		}
		got <- b.String()
	}()
	if err := w.Copy(strings.NewReader(long(0, n)), true); err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	close(done)
	s.Notify("task", 1)
	equal(t, "followed", <-got, longContents(0, n))
}

func TestTailSinceAndGrepOfASealedLog(t *testing.T) {
	s := newFineStore(t)
	const n = 15_000
	w := appendTo(t, s, strings.NewReader(long(0, n)))
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(14_000 * time.Millisecond)
	check := func(what string) {
		t.Helper()
		for _, tail := range []int{1, 10, 1000, 3_000, n - 1, n, n + 1} {
			equal(t, fmt.Sprint(what, ": the last ", tail), read(t, s, berth.LogQuery{Tail: tail}), longContents(max(0, n-tail), n))
		}
		equal(t, what+": since", read(t, s, berth.LogQuery{Since: since}), longContents(14_000, n))
		equal(t, what+": since, the last", read(t, s, berth.LogQuery{Since: since, Tail: 7}), longContents(n-7, n))
		equal(t, what+": since, fewer than asked for", read(t, s, berth.LogQuery{Since: since, Tail: n}), longContents(14_000, n))
		var matching strings.Builder
		for i := 4_999; i < n; i += 5_000 {
			matching.WriteString(longContents(i, i+1))
		}
		equal(t, what+": grep", read(t, s, berth.LogQuery{Grep: "[49]999$"}), matching.String())
		equal(t, what+": grep, the last 2", read(t, s, berth.LogQuery{Grep: "[49]999$", Tail: 2}), longContents(9_999, 10_000)+longContents(14_999, 15_000))
	}
	check("plain at its end")
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	check("sealed")
}

func TestAPatternThatIsNoneIsNamed(t *testing.T) {
	s := newStore(t)
	for _, err := range s.Read(context.Background(), "task", 1, berth.LogQuery{Grep: "a(b"}, func() bool { return true }) {
		if berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), `"a(b"`) {
			t.Errorf("%v", err)
		}
	}
}

// A line of many mebibytes comes in pieces, whose read can be cut anywhere.
func TestAHugeLineComesInPieces(t *testing.T) {
	s := newStore(t)
	huge := stamp(1) + " " + strings.Repeat("0123456789", 600<<10) + "\n"
	w := appendTo(t, s, strings.NewReader(stamp(0)+" first\n"+huge+stamp(2)+" last\n"))
	want := "first\n" + huge[len(stamp(1))+1:] + "last\n"
	for _, sealed := range []bool{false, true} {
		if sealed {
			if err := w.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "whole", read(t, s, berth.LogQuery{}), want)
		given := 0
		for chunk := range s.Read(context.Background(), "task", 1, berth.LogQuery{}, func() bool { return true }) {
			if len(chunk.Data) > 3*maxPiece {
				t.Errorf("a chunk of %d bytes", len(chunk.Data))
			}
			given += len(chunk.Data)
			equal(t, fmt.Sprint("cut at ", chunk.Offset), read(t, s, berth.LogQuery{Offset: chunk.Offset}), want[given:])
		}
	}
}

func TestStreamsAreToldApart(t *testing.T) {
	s := newStore(t)
	text := stamp(1) + ">out 1\n" + stamp(2) + "^err 1\n" + stamp(3) + "^err 2\n" + stamp(4) + ">out 2\n" + stamp(5) + " either\n"
	appendTo(t, s, strings.NewReader(text))
	var got []string
	for chunk, err := range s.Read(context.Background(), "task", 1, berth.LogQuery{}, func() bool { return true }) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s:%s", chunk.Stream, chunk.Data))
	}
	if want := "[stdout:out 1\n stderr:err 1\nerr 2\n stdout:out 2\n :either\n]"; fmt.Sprint(got) != want {
		t.Errorf("%q, want %q", fmt.Sprint(got), want)
	}
	if got := read(t, s, berth.LogQuery{Stream: berth.LogStderr}); got != "err 1\nerr 2\n" {
		t.Errorf("stderr: %q", got)
	}
	if got := read(t, s, berth.LogQuery{Stream: berth.LogStdout, Tail: 2}); got != "out 2\neither\n" {
		t.Errorf("stdout, the last two: %q", got)
	}
	if got := read(t, s, berth.LogQuery{Timestamps: true, Tail: 2}); got != stamp(4)+" out 2\n"+stamp(5)+" either\n" {
		t.Errorf("with times: %q", got)
	}
}

func FuzzSealed(f *testing.F) {
	b := block{offset: 0}
	b.describe([]byte(lines(0, 3)), 0)
	f.Add(b.appendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStore(t)
		appendTo(t, s).Close()
		if err := os.Remove(s.path("task", 1)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.sealedPath("task", 1), data, 0o600); err != nil {
			t.Fatal(err)
		}
		read(t, s, berth.LogQuery{})
		read(t, s, berth.LogQuery{Tail: 2})
		read(t, s, berth.LogQuery{Offset: 5})
		appendTo(t, s, strings.NewReader(lines(0, 5)))
		if got := read(t, s, berth.LogQuery{}); !strings.HasSuffix(got, contents(4, 5)) {
			t.Errorf("%q", got)
		}
	})
}
