package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
)

// kubelet has the logs of pods, as a kubelet gives them.
type kubelet struct {
	mu      sync.Mutex
	lines   map[string][]string
	gone    map[string]bool
	read    map[string]int // calls that don't follow
	streams map[string]int // that were opened
}

func newKubelet(c *cluster) *kubelet {
	k := &kubelet{lines: map[string][]string{}, gone: map[string]bool{}, read: map[string]int{}, streams: map[string]int{}}
	c.onLogs = k.logs
	return k
}

func (k *kubelet) prints(task berth.Task, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines[*task.Pod] = append(k.lines[*task.Pod], time.Now().UTC().Format(time.RFC3339Nano)+" "+text+"\n")
}

func (k *kubelet) logs(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone[pod] {
		return nil, &Refusal{Kind: RefusedNotFound, Err: errors.New("not found")}
	}
	var text strings.Builder
	for _, line := range k.lines[pod] {
		stamp, _, _ := strings.Cut(line, " ")
		if at, _ := time.Parse(time.RFC3339Nano, stamp); !at.Before(since.Truncate(time.Second)) {
			text.WriteString(line)
		}
	}
	if !follow {
		k.read[pod]++
		return io.NopCloser(strings.NewReader(text.String())), nil
	}
	k.streams[pod]++
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() { _, _ = io.WriteString(w, text.String()) }() // and then it stays open
	return r, nil
}

// hanging is a call for a log that nobody answers.
func hanging(ctx context.Context, _ string, _ time.Time, _ bool) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (k *kubelet) calls(task berth.Task) (read, streams int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.read[*task.Pod], k.streams[*task.Pod]
}

// crowded has a task whose log is read in turns, for another has the stream.
func crowded(t *testing.T) (c *cluster, k *kubelet, p *process, task berth.Task) {
	c = newCluster()
	k = newKubelet(c)
	p = start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	p.engine.loop("here").inbox.post(func(s *step) { s.streamsMost = 1 })
	first := p.running(c, nil)
	time.Sleep(time.Second)
	if read, streams := k.calls(first); read != 0 || streams != 1 {
		t.Fatalf("the first log was read %d times and followed %d times", read, streams)
	}
	task = p.running(c, nil)
	time.Sleep(time.Second)
	if read, streams := k.calls(task); read != 1 || streams != 0 {
		t.Fatalf("the second log was read %d times and followed %d times", read, streams)
	}
	return c, k, p, task
}

func (p *process) log(id string) string {
	p.t.Helper()
	var text []byte
	for chunk, err := range p.engine.logs.(logKeeper).Read(p.t.Context(), id, 1, berth.LogQuery{}, func() bool { return true }) {
		if err != nil {
			p.t.Fatal(err)
		}
		text = append(append(text, chunk.Data...), chunk.Gap...)
	}
	return string(text)
}

func TestLogsBeyondTheStreamsAreReadInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k, p, task := crowded(t)
		want := ""
		for i := range 20 {
			line := fmt.Sprintf("line %d", i)
			k.prints(task, line)
			want += line + "\n"
			time.Sleep(time.Minute)
		}
		read, streams := k.calls(task)
		if read < 20 || read > 130 || streams != 0 {
			t.Errorf("a log that grows each minute was read %d times and followed %d times in 20 minutes", read, streams)
		}
		time.Sleep(30 * time.Minute)
		if n, _ := k.calls(task); n-read < 10 || n-read > 30 {
			t.Errorf("a log that doesn't grow was read %d times in 30 minutes", n-read)
		}
		k.prints(task, "last")
		c.ends(*task.Pod, 0)
		if life := p.settled(task.ID); life.Attempts[0].Logs != berth.LogsComplete {
			t.Errorf("the log is %q", life.Attempts[0].Logs)
		}
		if got := p.log(task.ID); got != want+"last\n" {
			t.Errorf("the log is\n%s", got)
		}
	})
}

func TestALogIsFollowedInPlaceOfItsTurns(t *testing.T) {
	for name, because := range map[string]func(*cluster, *kubelet, *process, berth.Task){
		"it brought much": func(_ *cluster, k *kubelet, _ *process, task berth.Task) {
			for range 64 {
				k.prints(task, strings.Repeat("x", 32<<10))
			}
			time.Sleep(turnMost)
		},
		"somebody follows it": func(_ *cluster, _ *kubelet, p *process, task berth.Task) {
			if _, err := p.engine.Logs(p.t.Context(), task.ID, 0, true); err != nil {
				p.t.Error(err)
			}
		},
		"its pod is being deleted": func(c *cluster, _ *kubelet, _ *process, task berth.Task) {
			c.mu.Lock()
			defer c.mu.Unlock()
			o := c.pods[*task.Pod]
			o.Leaving = true
			c.sink.Observed(o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, k, p, task := crowded(t)
				because(c, k, p, task)
				synctest.Wait()
				if _, streams := k.calls(task); streams != 1 {
					t.Errorf("it was followed %d times", streams)
				}
			})
		})
	}
}

func TestWhatATurnCameTooLateForIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k, p, task := crowded(t)
		k.prints(task, "seen")
		time.Sleep(turnMost)
		k.prints(task, "never seen")
		k.mu.Lock()
		k.gone[*task.Pod] = true
		k.mu.Unlock()
		c.mu.Lock()
		o := c.pods[*task.Pod]
		delete(c.pods, *task.Pod)
		o.Gone = true
		c.sink.Observed(o)
		c.mu.Unlock()
		if life := p.settled(task.ID); life.Attempts[0].Logs != berth.LogsIncomplete {
			t.Errorf("the log is %q", life.Attempts[0].Logs)
		}
		if got := p.log(task.ID); !strings.HasPrefix(got, "seen\n") || !strings.Contains(got, "the pod is gone") {
			t.Errorf("the log is\n%s", got)
		}
	})
}

// A program that ends within a moment needs one call, not two.
func TestALogThatNobodyReadsIsLeftForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		k := newKubelet(c)
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		task := p.running(c, nil)
		c.ends(*task.Pod, 0)
		p.settled(task.ID)
		if read, streams := k.calls(task); read > 2 || streams != 0 {
			t.Errorf("it was read %d times and followed %d times", read, streams)
		}
	})
}

func TestALogThatSomebodyReadsIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		k := newKubelet(c)
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{Limits: berth.Limits{MaxPods: 10_000}})
		p.engine.loop("here").inbox.post(func(s *step) {
			for i := range 5000 {
				s.open[fmt.Sprint("another ", i)] = true
			}
		})
		task := p.running(c, nil)
		time.Sleep(9 * time.Second)
		if read, streams := k.calls(task); read != 0 || streams != 0 {
			t.Errorf("it was read %d times and followed %d times though nobody reads it", read, streams)
		}
		if _, err := p.engine.Logs(t.Context(), task.ID, 0, true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, streams := k.calls(task); streams != 1 {
			t.Errorf("it was followed %d times once somebody read it", streams)
		}
	})
}

// A running task's log that can't be read any more keeps nobody waiting, also
// where the task ends meanwhile.
func TestWhoReadsWaitsNoLongerThanForOneTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p, task := crowded(t)
		c.onLogs = hanging
		began := time.Now()
		go func() {
			time.Sleep(catchUp - time.Second) // while it is waited for
			c.ends(*task.Pod, 0)
		}()
		if of, err := p.engine.Logs(t.Context(), task.ID, 0, false); err != nil || time.Since(began) > catchUp {
			t.Errorf("%+v after %s, %v", of, time.Since(began), err)
		}
		p.crash()
	})
}

func TestWhoReadsAndDoesNotFollowGetsAllThatWasPrinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k, p, task := crowded(t)
		read := func(want string) {
			t.Helper()
			began := time.Now()
			of, err := p.engine.Logs(t.Context(), task.ID, 0, false)
			if got := p.log(task.ID); err != nil || of.Behind || got != want {
				t.Errorf("the log is %q, want %q; behind: %v; %v", got, want, of.Behind, err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("that took %s", took)
			}
		}
		time.Sleep(5 * time.Minute) // by now its turns are rare
		k.prints(task, "one")
		read("one\n")
		time.Sleep(time.Minute)
		k.prints(task, "two")
		c.ends(*task.Pod, 0)
		p.until(task.ID, func(task berth.Task) bool { return task.State.Terminal() })
		read("one\ntwo\n")
	})
}

func TestALogThatCannotBeReadInTimeIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.onLogs = hanging
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		task := p.running(c, nil)
		c.ends(*task.Pod, 0)
		p.until(task.ID, func(task berth.Task) bool { return task.State.Terminal() })
		began := time.Now()
		if of, err := p.engine.Logs(t.Context(), task.ID, 0, false); err != nil || !of.Behind || time.Since(began) != catchUp {
			t.Errorf("behind: %v after %s, %v", of.Behind, time.Since(began), err)
		}
		p.crash()
	})
}
