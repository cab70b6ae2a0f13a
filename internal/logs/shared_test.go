package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/objects"
	"github.com/berth-run/berth/internal/objects/objecttest"
)

// machine is a server's way to what all share; cut, it is dead to the others.
type machine struct {
	*Store
	dir string
	cut atomic.Bool
	log bytes.Buffer
}

type way struct {
	objects.Store
	m *machine
}

var errCut = berth.Errorf(berth.CodeUnavailable, "nothing can be reached")

func (w way) Put(ctx context.Context, key string, r io.Reader) error {
	if w.m.cut.Load() {
		return errCut
	}
	return w.Store.Put(ctx, key, r)
}

func (w way) Delete(ctx context.Context, key string) error {
	if w.m.cut.Load() {
		return errCut
	}
	return w.Store.Delete(ctx, key)
}

// newMachine opens a store that sends when a test says so.
func newMachine(t *testing.T, shared objects.Store, dir string) *machine {
	t.Helper()
	m := &machine{dir: dir}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.blockSize, s.sealAt, s.shipMerged, s.shipEvery = 200, 600, 1000, time.Hour
	m.Store = s
	if err := s.share(dir, Shared{Objects: way{shared, m}, Log: slog.New(slog.NewTextHandler(&m.log, nil))}); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.shipping.Wait() // tests send
	t.Cleanup(func() { m.cut.Store(true) })
	return m
}

func (m *machine) sendAll(t *testing.T) {
	t.Helper()
	if err := m.shipRound(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

// die ends it as a loss of the machine does.
func (m *machine) die(t *testing.T) {
	t.Helper()
	m.cut.Store(true)
	if err := os.RemoveAll(m.dir); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, w *Writer) {
	t.Helper()
	if err := errors.Join(w.Seal(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestALogIsTheSameOnEveryServer(t *testing.T) {
	var shared objecttest.Memory
	a, b, alone := newMachine(t, &shared, t.TempDir()), newMachine(t, &shared, t.TempDir()), newStore(t)
	text := stamp(0) + "!streams\n" + lines(0, 20) + stamp(20) + "!step 1\n" + lines(20, 60) + stamp(60) + "!step 2\n" + strings.ReplaceAll(lines(60, 90), "Z ", "Z^")
	queries := []berth.LogQuery{
		{}, {Tail: 1}, {Tail: 7}, {Tail: 1000}, {Step: 1}, {Step: 2}, {Stream: berth.LogStderr}, {Grep: "line 1[0-9]$"}, {Timestamps: true, Tail: 3},
		{Offset: int64(len(lines(0, 10)))}, {Offset: 777}, {Step: 2, Offset: 1500}, {Tail: 5, Grep: "9"},
	}
	for _, at := range []int{5, 30, 69} {
		queries = append(queries, berth.LogQuery{Since: parseStamp([]byte(stamp(at)))})
	}
	w := appendTo(t, a.Store, strings.NewReader(text))
	end(t, appendTo(t, alone, strings.NewReader(text)))
	same := func() {
		t.Helper()
		for _, q := range queries {
			want := read(t, alone, q)
			for name, s := range map[string]*Store{"who wrote it": a.Store, "the other": b.Store} {
				if got := read(t, s, q); got != want {
					t.Errorf("%+v on %s:\n%s\nwant\n%s", q, name, got, want)
				}
			}
		}
	}
	a.sendAll(t)
	same() // while it is open
	end(t, w)
	a.sendAll(t)
	if _, err := os.Stat(a.sealedPath("task", 1)); err == nil {
		t.Error("a log that is complete where all read it is still here")
	}
	same()
	if keys := shared.Keys(); len(keys) != 1 {
		t.Errorf("a complete log is one object: %v", keys)
	}
}

func TestALogGoesOnOnAnotherServerWithoutLossOrDouble(t *testing.T) {
	var shared objecttest.Memory
	a, b := newMachine(t, &shared, t.TempDir()), newMachine(t, &shared, t.TempDir())
	appendTo(t, a.Store, strings.NewReader(lines(0, 40)))
	a.sendAll(t)
	appendTo(t, a.Store, strings.NewReader(lines(0, 50))) // what wasn't sent goes with the machine
	a.die(t)
	if got := read(t, b.Store, berth.LogQuery{}); got != contents(0, 40) {
		t.Errorf("what was sent:\n%s", got)
	}
	// The cluster gives the log from the last stored second on.
	w := appendTo(t, b.Store)
	if got := w.Last(); !got.Equal(parseStamp([]byte(stamp(39)))) {
		t.Errorf("it goes on behind %v", got)
	}
	if err := w.Copy(strings.NewReader(lines(30, 70)), true); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b.Store, berth.LogQuery{}); got != contents(0, 70) {
		t.Errorf("while it is open:\n%s", got)
	}
	end(t, w)
	b.sendAll(t)
	c := newMachine(t, &shared, t.TempDir())
	for _, s := range []*machine{b, c} {
		if got := read(t, s.Store, berth.LogQuery{}); got != contents(0, 70) {
			t.Errorf("at its end:\n%s", got)
		}
	}
	if keys := shared.Keys(); len(keys) != 1 {
		t.Errorf("a complete log is one object: %v", keys)
	}
}

func TestWhatAServerThatWasTakenForDeadSendsChangesNothing(t *testing.T) {
	var shared objecttest.Memory
	a, b := newMachine(t, &shared, t.TempDir()), newMachine(t, &shared, t.TempDir())
	stale := appendTo(t, a.Store, strings.NewReader(lines(0, 20)))
	a.sendAll(t)
	w := appendTo(t, b.Store, strings.NewReader(lines(15, 30)))
	if err := w.Gap("of b's"); err != nil {
		t.Fatal(err)
	}
	b.sendAll(t)
	if err := stale.Copy(strings.NewReader(lines(15, 45)), true); err != nil {
		t.Fatal(err)
	}
	a.sendAll(t)
	if err := w.Copy(strings.NewReader(lines(25, 50)), true); err != nil {
		t.Fatal(err)
	}
	want := contents(0, 30) + "<of b's>" + contents(30, 50)
	end(t, w)
	b.sendAll(t)
	if err := stale.Copy(strings.NewReader(lines(40, 60)), true); err != nil {
		t.Fatal(err)
	}
	stale.Close()
	a.sendAll(t)
	if got := read(t, newMachine(t, &shared, t.TempDir()).Store, berth.LogQuery{}); got != want {
		t.Errorf("%s", got)
	}
}

func TestStorageOutOfReachLosesNothing(t *testing.T) {
	var shared objecttest.Memory
	a := newMachine(t, &shared, t.TempDir())
	shared.Reachable(false)
	w, err := a.Append("task", 1, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Copy(strings.NewReader(lines(0, 30)), true); err != nil {
		t.Fatal(err)
	}
	if err := a.shipRound(t.Context(), false); err == nil {
		t.Error("it was sent to nowhere")
	}
	logs, since, failures := a.Unsent()
	if logs != 1 || since.IsZero() || failures != 1 {
		t.Errorf("%d logs since %v, %d failures", logs, since, failures)
	}
	if got := read(t, a.Store, berth.LogQuery{}); got != contents(0, 30) {
		t.Errorf("%s", got)
	}
	end(t, w)
	// Another process on the same machine sends it.
	next := newMachine(t, &shared, a.dir)
	if _, err := next.Append("other", 1, false); berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("a log of which another server may have a part: %v", err)
	}
	b := newMachine(t, &shared, t.TempDir())
	for _, err := range b.Read(t.Context(), "task", 1, berth.LogQuery{}, func() bool { return true }) {
		if berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "can't be reached") {
			t.Errorf("a reader is told %v", err)
		}
	}
	shared.Reachable(true)
	next.sendAll(t)
	if got := read(t, b.Store, berth.LogQuery{}); got != contents(0, 30) {
		t.Errorf("%s", got)
	}
	if logs, _, _ := next.Unsent(); logs != 0 {
		t.Errorf("%d logs are not sent", logs)
	}
}

func TestALogThatIsFollowedFromItsFirstLineNeedsNoStorage(t *testing.T) {
	var shared objecttest.Memory
	a := newMachine(t, &shared, t.TempDir())
	shared.Reachable(false)
	var over atomic.Bool
	got := make(chan string, 1)
	go func() {
		text := ""
		for chunk, err := range a.Read(t.Context(), "task", 1, berth.LogQuery{Follow: true}, over.Load) {
			if err != nil {
				text += "<" + err.Error() + ">"
			}
			text += string(chunk.Data)
		}
		got <- text
	}()
	w, err := a.Append("task", 1, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Copy(strings.NewReader(lines(0, 30)), true); err != nil {
		t.Fatal(err)
	}
	end(t, w)
	over.Store(true)
	a.Notify("task", 1)
	if text := <-got; text != contents(0, 30) {
		t.Errorf("%s", text)
	}
}

func TestTroubleWithStorageIsSaidOnceAndItsEndToo(t *testing.T) {
	var shared objecttest.Memory
	var log lockedBuffer
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.shipEvery = 5 * time.Millisecond
	shared.Reachable(false)
	if err := s.share(s.dir, Shared{Objects: &shared, Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
		t.Fatal(err)
	}
	w, err := s.Append("task", 1, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Copy(strings.NewReader(lines(0, 3)), true); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { _, _, failures := s.Unsent(); return failures > 1 })
	shared.Reachable(true)
	await(t, func() bool { return strings.Contains(log.String(), "again") && len(shared.Keys()) == 1 })
	if n := strings.Count(log.String(), "can't be sent"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestASlowLogIsInFewParts(t *testing.T) {
	var shared objecttest.Memory
	a := newMachine(t, &shared, t.TempDir())
	a.shipMerged = 1 << 20
	w := appendTo(t, a.Store)
	const n = 300
	for i := range n {
		if err := w.Copy(strings.NewReader(lines(i, i+1)), true); err != nil {
			t.Fatal(err)
		}
		a.sendAll(t)
	}
	if keys := shared.Keys(); len(keys) > 12 {
		t.Errorf("%d lines sent one at a time are %d objects", n, len(keys))
	}
	if got := read(t, newMachine(t, &shared, t.TempDir()).Store, berth.LogQuery{}); got != contents(0, n) {
		t.Errorf("%s", got)
	}
}

func TestLogsOnSharedStorageAreRemovedAsOthers(t *testing.T) {
	var shared objecttest.Memory
	a, b := newMachine(t, &shared, t.TempDir()), newMachine(t, &shared, t.TempDir())
	end(t, appendTo(t, a.Store, strings.NewReader(lines(0, 5))))
	a.sendAll(t)
	if !b.Swept().IsZero() {
		t.Error("it was swept before")
	}
	now := time.Now().Add(48 * time.Hour)
	ended := func(context.Context, string) (time.Time, bool, error) { return time.Now(), true, nil }
	if n, err := b.Sweep(t.Context(), berth.LogLimits{MaxAge: 24 * time.Hour}, ended, now); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if a.Swept().IsZero() {
		t.Error("nobody knows that it was swept")
	}
	if got := read(t, a.Store, berth.LogQuery{}); !strings.Contains(got, "its task ended more than 24h0m0s before") {
		t.Errorf("%q", got)
	}
}

func TestLogsOfBeforeThereWasSharedStorageAreSent(t *testing.T) {
	dir := t.TempDir()
	before, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	end(t, appendTo(t, before, strings.NewReader(lines(0, 5)))) // small: it stays plain
	var shared objecttest.Memory
	a := newMachine(t, &shared, dir)
	ended := func(context.Context, string) (time.Time, bool, error) { return time.Now(), true, nil }
	if _, err := a.Sweep(t.Context(), berth.LogLimits{MaxAge: time.Hour}, ended, time.Now()); err != nil {
		t.Fatal(err)
	}
	a.sendAll(t)
	if got := read(t, newMachine(t, &shared, t.TempDir()).Store, berth.LogQuery{}); got != contents(0, 5) {
		t.Errorf("%q", got)
	}
}

// TestSharedLogsUnderRandomFaults has servers write, send, die with or without
// their disks, come back, and storage fail: at the end every line is there once.
func TestSharedLogsUnderRandomFaults(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		var shared objecttest.Memory
		dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
		at := 0
		m := newMachine(t, &shared, dirs[0])
		w := appendTo(t, m.Store)
		written := 0
		var did []string
		for range 40 {
			switch n := r.IntN(10); {
			case n < 4:
				from := max(0, written-r.IntN(12))
				written = min(250, written+r.IntN(20))
				text := lines(from, written)
				did = append(did, fmt.Sprintf("lines to %d", written))
				stream := io.Reader(strings.NewReader(text))
				if len(text) > 0 && r.IntN(2) == 0 {
					cut := r.IntN(len(text))
					stream = io.MultiReader(strings.NewReader(text[:cut]), iotest.ErrReader(errors.New("cut")))
				}
				// The cluster gives what follows the last line's second.
				if last := w.Last(); last.IsZero() || from > 0 && parseStamp([]byte(stamp(from))).After(last) {
					stream = strings.NewReader(lines(0, written))
				}
				var broken *StreamError
				if err := w.Copy(stream, false); err != nil && !errors.As(err, &broken) {
					t.Fatal(seed, err)
				}
			case n < 7:
				did = append(did, "send")
				_ = m.shipRound(t.Context(), false)
			case n == 7:
				did = append(did, "storage comes or goes")
				shared.Reachable(r.IntN(2) == 0)
			default:
				shared.Reachable(true)
				if r.IntN(2) == 0 {
					w.Close()
					_ = m.Close()
					did = append(did, "ends well")
				}
				m.cut.Store(true)
				if r.IntN(2) == 0 {
					did = append(did, "disk is lost")
					_ = os.RemoveAll(dirs[at])
				}
				at = r.IntN(len(dirs))
				did = append(did, fmt.Sprintf("server %d", at))
				m = newMachine(t, &shared, dirs[at])
				w = appendTo(t, m.Store)
			}
		}
		shared.Reachable(true)
		if err := w.Copy(strings.NewReader(lines(0, 250)), false); err != nil {
			t.Fatal(seed, err)
		}
		end(t, w)
		m.sendAll(t)
		for name, s := range map[string]*machine{"it": m, "another": newMachine(t, &shared, t.TempDir())} {
			if got := read(t, s.Store, berth.LogQuery{}); got != contents(0, 250) {
				t.Fatalf("seed %d, %s: after %v:\n%s\n%v", seed, name, did, got, shared.Keys())
			}
		}
	}
}

type lockedBuffer struct {
	buf atomic.Value
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	old, _ := b.buf.Load().(string)
	b.buf.Store(old + string(p)) // one logger writes
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	text, _ := b.buf.Load().(string)
	return text
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in time")
		}
		<-time.After(time.Millisecond)
	}
}
