package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/logs"
)

// A pod's last changes may be told after the answer to its delete.
func TestWhatTheWatchTellsLateOfADeletedPodIsNotDeletedAgain(t *testing.T) {
	c := newCluster()
	c.watchLags, c.autoEnd = true, true
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	life := p.settled(task.ID)
	a := life.Attempts[0]
	late := berth.Observation{TaskID: task.ID, Attempt: 1, Pod: a.Pod, UID: a.UID, StartedAt: a.StartedAt}
	c.sink.Observed(late)
	late.Gone = true
	c.sink.Observed(late)
	p.turn()
	if c.deletes != 1 {
		t.Errorf("it was deleted %d times", c.deletes)
	}
	if l := p.engine.loop("here"); len(l.deleted) != 0 {
		t.Errorf("%v are still remembered", l.deleted)
	}
}

// turn returns once all that the loop was told by now is taken in.
func (p *process) turn() {
	done := make(chan struct{})
	p.engine.loop("here").inbox.post(func(s *step) { s.replies = append(s.replies, reply{send: func(error) { close(done) }}) })
	<-done
}

// endless is a Driver of whose pods nothing but logs is asked, which end at
// once though the container runs.
type endless struct {
	Driver
	calls atomic.Int32
}

func (e *endless) Logs(context.Context, string, time.Time, bool) (io.ReadCloser, error) {
	e.calls.Add(1)
	return io.NopCloser(strings.NewReader("")), nil
}

// noLog is a LogWriter that has nothing.
type noLog struct{}

func (noLog) Copy(io.Reader, bool) error { return nil }
func (noLog) Last() time.Time            { return time.Time{} }
func (noLog) Ended(time.Time)            {}
func (noLog) Streams() bool              { return false }
func (noLog) Unjoined() bool             { return false }
func (noLog) Gap(string) error           { return nil }
func (noLog) Seal() error                { return nil }
func (noLog) Close() error               { return nil }

func testLoop() *loop {
	e := New(nil, nil, nil, nil, slog.New(slog.DiscardHandler))
	return newLoop(e, "here")
}

func TestAStreamThatEndsAgainAndAgainIsAskedForLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		driver, f := &endless{}, newFollower(false)
		state := make(chan berth.LogState)
		go func() { state <- testLoop().copyAll(t.Context(), driver, f, noLog{}, "pod") }()
		time.Sleep(10 * time.Minute)
		if n := driver.calls.Load(); n > 25 {
			t.Errorf("%d calls within ten minutes", n)
		}
		f.end()
		began := time.Now()
		if got := <-state; got != berth.LogsComplete || time.Since(began) > late {
			t.Errorf("the log is %v %v after the end", got, time.Since(began))
		}
	})
}

// oldLog is a LogWriter that has something.
type oldLog struct{ noLog }

func (oldLog) Last() time.Time { return time.Unix(1, 0) }

// lostLog is one whose last line never comes again.
type lostLog struct{ oldLog }

func (lostLog) Unjoined() bool { return true }

// A stream that ended before its container was seen to end may have been cut by
// the end of its kubelet, which an API server passes on as if it was all.
func TestAStreamThatEndedBeforeItsContainerIsReadOnceMore(t *testing.T) {
	for _, is := range []struct {
		w     LogWriter
		calls int32
		apart time.Duration
	}{{oldLog{}, 2, 0}, {noLog{}, 3, late}, {lostLog{}, 3, hiccup}} { // what says that nothing is there is not believed the first time
		synctest.Test(t, func(t *testing.T) {
			driver, f := &endless{}, newFollower(false)
			state := make(chan berth.LogState)
			go func() { state <- testLoop().copyAll(t.Context(), driver, f, is.w, "pod") }()
			time.Sleep(time.Second)
			if n := driver.calls.Load(); n != 1 {
				t.Fatalf("%d calls while it runs", n)
			}
			f.end()
			ended := time.Now()
			if got := <-state; got != berth.LogsComplete || driver.calls.Load() != is.calls || time.Since(ended) != is.apart {
				t.Errorf("the log is %v after %d calls and %s, want %d and %s", got, driver.calls.Load(), time.Since(ended), is.calls, is.apart)
			}
		})
	}
}

// timedLog is a LogWriter that was told when the program ended.
type timedLog struct {
	oldLog
	ended  *time.Time
	copied *[]time.Time // what it had been told by then
}

func (w timedLog) Ended(at time.Time) { *w.ended = at }

func (w timedLog) Copy(io.Reader, bool) error {
	*w.copied = append(*w.copied, *w.ended)
	return nil
}

func TestALogIsToldWhenItsProgramEndedBeforeItIsReadForTheLastTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, f, w := testLoop(), newFollower(false), timedLog{ended: new(time.Time), copied: new([]time.Time)}
		state := make(chan berth.LogState)
		go func() { state <- l.copyAll(t.Context(), &endless{}, f, w, "pod") }()
		synctest.Wait()
		at := time.Now()
		l.endLog(&berth.Attempt{EndedAt: at}, f)
		<-state
		if want := []time.Time{{}, at}; !slices.Equal(*w.copied, want) {
			t.Errorf("copied knowing %v, want %v", *w.copied, want)
		}
	})
}

// A kubelet that ends may say twice within a moment that there is nothing.
func TestALogThatWasNeverStreamedIsNotBelievedToBeEmptyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		driver, f := &endless{}, newFollower(false)
		f.end()
		began := time.Now()
		if got := testLoop().copyAll(t.Context(), driver, f, noLog{}, "pod"); got != berth.LogsComplete || driver.calls.Load() != 2 || time.Since(began) != hiccup {
			t.Errorf("the log is %v after %d calls and %s", got, driver.calls.Load(), time.Since(began))
		}
	})
}

// broken is a Driver of whose pods no log can be read, though they are there.
type broken struct {
	Driver
	calls atomic.Int32
}

func (b *broken) Logs(ctx context.Context, _ string, _ time.Time, follow bool) (io.ReadCloser, error) {
	b.calls.Add(1)
	if follow {
		<-ctx.Done() // as if it was open until the end
	}
	return nil, errors.New("the node does not answer")
}

func TestALogThatCannotBeReadAtItsEndIsAskedForLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		driver, f := &broken{}, newFollower(false)
		state := make(chan berth.LogState)
		go func() { state <- testLoop().copyAll(t.Context(), driver, f, noLog{}, "pod") }()
		synctest.Wait()
		f.end()
		if got := <-state; got != berth.LogsIncomplete || driver.calls.Load() > 30 {
			t.Errorf("the log is %v after %d calls", got, driver.calls.Load())
		}
	})
}

// silent is a Driver whose one pod's agent said that it marks lines, and nothing
// after that. A stream that follows has no end.
type silent struct{ Driver }

func (silent) Logs(ctx context.Context, _ string, _ time.Time, follow bool) (io.ReadCloser, error) {
	log := strings.NewReader("2026-01-02T03:04:05.06Z " + string(agent.StreamsFrame("nonce")))
	if !follow {
		return io.NopCloser(log), nil
	}
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, log)
		<-ctx.Done()
		w.CloseWithError(ctx.Err())
	}()
	return r, nil
}

// Nothing is missing where the stream was cut, and what comes again is all that
// there was.
func TestALogOfNothingButItsMarkHasNoGap(t *testing.T) {
	store, err := logs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w, err := store.Append("task", 1, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f := newFollower(false)
	f.nonce = "nonce"
	state := make(chan berth.LogState)
	go func() { state <- testLoop().copyAll(t.Context(), silent{}, f, w, "pod") }()
	eventually(t, func() bool { return f.read.Load() > 0 })
	f.end()
	if got := <-state; got != berth.LogsComplete || w.Unjoined() {
		t.Errorf("the log is %v, and output is missing: %v", got, w.Unjoined())
	}
}
