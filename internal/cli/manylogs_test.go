package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// shelf is a Service that has tasks and their logs.
type shelf struct {
	berth.Service
	mu    sync.Mutex
	tasks []berth.Task // newest first
	logs  map[string][]berth.LogChunk
	wait  map[string]chan struct{} // a log ends when it is closed
}

func (s *shelf) add(id, name string, chunks ...berth.LogChunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	task := berth.Task{ID: id, State: berth.StateSucceeded}
	if name != "" {
		task.Name = &name
	}
	s.tasks = append([]berth.Task{task}, s.tasks...)
	if s.logs == nil {
		s.logs, s.wait = map[string][]berth.LogChunk{}, map[string]chan struct{}{}
	}
	s.logs[id] = chunks
}

func (s *shelf) Task(_ context.Context, id string) (berth.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.ID == id {
			return t, nil
		}
	}
	return berth.Task{}, berth.Errorf(berth.CodeNotFound, "there is no task %s", id)
}

func (s *shelf) Tasks(_ context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return berth.TaskPage{Tasks: append([]berth.Task(nil), s.tasks[:min(len(s.tasks), q.Limit)]...)}, nil
}

func (s *shelf) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		s.mu.Lock()
		chunks, wait := s.logs[id], s.wait[id]
		s.mu.Unlock()
		for _, c := range chunks {
			if !q.Timestamps && c.Gap == "" {
				var data []byte
				for line := range bytes.Lines(c.Data) {
					_, content, _ := bytes.Cut(line, []byte(" "))
					data = append(data, content...)
				}
				c.Data = data
			}
			if !yield(c, nil) {
				return
			}
		}
		if q.Follow && wait != nil {
			select {
			case <-wait:
			case <-ctx.Done():
				yield(berth.LogChunk{}, ctx.Err())
			}
		}
	}
}

func out(second int, text string) berth.LogChunk {
	return berth.LogChunk{Data: fmt.Appendf(nil, "2026-01-02T03:04:%02dZ %s", second, text), Stream: berth.LogStdout}
}

func errs(second int, text string) berth.LogChunk {
	c := out(second, text)
	c.Stream = berth.LogStderr
	return c
}

// buffer is written by many at once.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newTestApp() (a *app, stdout, stderr *buffer) {
	stdout, stderr = &buffer{}, &buffer{}
	return &app{stdout: stdout, stderr: stderr}, stdout, stderr
}

func TestLogsOfSeveralTasksAreInTheOrderOfTheirTimes(t *testing.T) {
	s := &shelf{}
	s.add("t1", "first", out(1, "a\n"), out(4, "d\nno newline"))
	s.add("t2", "", out(2, "b\n"), berth.LogChunk{Gap: "something\x1b[2J is missing"}, errs(3, "c\n"))
	a, stdout, stderr := newTestApp()
	if err := a.showLogs(t.Context(), s, []string{"t1", "t2", "t1"}, nil, berth.LogQuery{}); err != nil {
		t.Fatal(err)
	}
	if want := "[first] a\n[t2]    b\n[first] d\n[first] no newline\n"; stdout.String() != want {
		t.Errorf("stdout %q, want %q", stdout.String(), want)
	}
	if want := "berth: [t2] something[2J is missing\n[t2]    c\n"; stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
	if err := a.showLogs(t.Context(), s, []string{"t1", "none"}, nil, berth.LogQuery{}); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("a task that isn't there: %v", err)
	}
}

func TestTasksOfOneNameAreToldApartByTheirIds(t *testing.T) {
	s := &shelf{}
	s.add("t1", "same", out(1, "a\n"))
	s.add("t2", "same", out(2, "b\n"))
	a, stdout, _ := newTestApp()
	if err := a.showLogs(t.Context(), s, nil, map[string]string{"k": "v"}, berth.LogQuery{Timestamps: true}); err != nil {
		t.Fatal(err)
	}
	if want := "[t1] 2026-01-02T03:04:01Z a\n[t2] 2026-01-02T03:04:02Z b\n"; stdout.String() != want {
		t.Errorf("%q, want %q", stdout.String(), want)
	}
}

func TestATaskThatGetsTheLabelLaterIsJoined(t *testing.T) {
	s := &shelf{}
	s.add("t1", "", out(1, "a\n"))
	s.wait["t1"] = make(chan struct{})
	a, stdout, _ := newTestApp()
	done := make(chan error)
	go func() {
		done <- a.showLogs(t.Context(), s, nil, map[string]string{"k": "v"}, berth.LogQuery{Follow: true})
	}()
	has := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(stdout.String(), text); {
			if time.Now().After(deadline) {
				t.Fatalf("%q has no %q", stdout.String(), text)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	has("[t1] a\n")
	s.add("t2", "", out(2, "b\n"))
	has("[t2] b\n")
	close(s.wait["t1"])
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFollowingSeveralEndsWhenItIsInterrupted(t *testing.T) {
	s := &shelf{}
	for _, id := range []string{"t1", "t2"} {
		s.add(id, "", out(1, "a\n"))
		s.wait[id] = make(chan struct{})
	}
	a, _, _ := newTestApp()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.showLogs(ctx, s, []string{"t1", "t2"}, nil, berth.LogQuery{Follow: true}) }()
	cancel()
	if err := <-done; err == nil {
		t.Error("it ended as if all were there")
	}
}

func TestMoreLogsThanAreShownAtOnceAreRefused(t *testing.T) {
	s := &shelf{}
	for i := range maxLogs + 1 {
		s.add(fmt.Sprint("t", i), "", out(1, "a\n"))
	}
	a, stdout, _ := newTestApp()
	err := a.showLogs(t.Context(), s, nil, map[string]string{"k": "v"}, berth.LogQuery{})
	if err == nil || !strings.Contains(err.Error(), "at most 50") || stdout.String() != "" {
		t.Errorf("%v, %q", err, stdout.String())
	}
	// When they are followed the others wait for their turn.
	if err := a.showLogs(t.Context(), s, nil, map[string]string{"k": "v"}, berth.LogQuery{Follow: true}); err != nil || strings.Count(stdout.String(), "\n") != maxLogs+1 {
		t.Errorf("%v, %d lines", err, strings.Count(stdout.String(), "\n"))
	}
}

func TestOnATerminalPrefixesAreColouredAndLinesAreClean(t *testing.T) {
	was := isTerminal
	isTerminal = func(io.Writer) bool { return true }
	t.Cleanup(func() { isTerminal = was })
	for name, tt := range map[string]struct {
		noColour string
		raw      bool
		want     string
	}{
		"a terminal": {"", false, "\x1b[%sm[a] \x1b[0m100%%\n\x1b[%[1]sm[a] \x1b[0mred\n"},
		"NO_COLOR":   {"1", false, "[a] 100%%%.0[1]s\n[a] red\n"},
		"as it is":   {"1", true, "[a] 10%%\r100%%\r%.0[1]s\n[a] \x1b[31mred\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColour)
			s := &shelf{}
			s.add("a", "", out(1, "10%\r100%\r\n"), out(2, "\x1b[31mred\n"))
			a, stdout, _ := newTestApp()
			a.raw = tt.raw
			if err := a.showLogs(t.Context(), s, nil, map[string]string{"k": "v"}, berth.LogQuery{}); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(tt.want, prefixColours['a'%len(prefixColours)]); stdout.String() != want {
				t.Errorf("%q, want %q", stdout.String(), want)
			}
		})
	}
}

func TestATerminalGetsNoEscapeSequenceAndAPipeEveryByte(t *testing.T) {
	const text = "\x1b]0;title\x07red \x1b[31mtext\x1b[0m \x9b2J\n"
	for name, tt := range map[string]struct {
		terminal, raw bool
		want          string
	}{
		"a terminal":            {true, false, "red text \n"},
		"a terminal with --raw": {true, true, text},
		"a pipe":                {false, false, text},
	} {
		t.Run(name, func(t *testing.T) {
			was := isTerminal
			isTerminal = func(io.Writer) bool { return tt.terminal }
			t.Cleanup(func() { isTerminal = was })
			s := &shelf{}
			s.add("t1", "", out(1, text), errs(2, text))
			var stdout, stderr buffer
			a := &app{raw: tt.raw}
			a.stdout, a.stderr = &guard{Writer: &stdout, raw: &a.raw}, &guard{Writer: &stderr, raw: &a.raw}
			if err := a.showLog(t.Context(), s, "t1", "", berth.LogQuery{}); err != nil {
				t.Fatal(err)
			}
			if stdout.String() != tt.want || stderr.String() != tt.want {
				t.Errorf("stdout %q, stderr %q, want %q", stdout.String(), stderr.String(), tt.want)
			}
		})
	}
}

// Names, events, nodes, images and errors come from a cluster, and tables and
// messages go the way of logs.
func TestMessagesAndTablesDontSteerATerminal(t *testing.T) {
	was := isTerminal
	isTerminal = func(io.Writer) bool { return true }
	t.Cleanup(func() { isTerminal = was })
	const evil = "x\x1b]0;t\x07\u009b2Jy"
	var stdout, stderr buffer
	a := &app{output: "table"}
	a.stdout, a.stderr = &guard{Writer: &stdout, raw: &a.raw}, &guard{Writer: &stderr, raw: &a.raw}
	name := evil
	task := berth.Task{ID: "t1", Name: &name, Image: evil, Node: &name, Infrastructure: evil, State: berth.StateFailed,
		Diagnosis: &berth.Diagnosis{Cause: berth.CauseUnknown, Summary: evil, Remedy: berth.Remedy{Text: evil}}}
	if err := a.print([]berth.Task{task}, func(w io.Writer) { taskTable(w, []berth.Task{task}, nil) }); err != nil {
		t.Fatal(err)
	}
	a.output = "json"
	if err := a.print(task, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(a.stderr, ending(task, 100))
	fmt.Fprintln(a.stderr, "berth: "+evil)
	for _, text := range []string{stdout.String(), stderr.String(), describe(task)} {
		if strings.ContainsAny(text, "\x1b\x07\u009b") || !strings.Contains(text, "y") {
			t.Errorf("%q", text)
		}
	}
}

func TestATaskWithoutOutputSaysSoOnStderrAlone(t *testing.T) {
	s := &shelf{}
	s.add("t1", "")
	a, stdout, stderr := newTestApp()
	if err := a.showLog(t.Context(), s, "t1", "", berth.LogQuery{}); err != nil {
		t.Fatal(err)
	}
	if stdout.String() != "" || stderr.String() != "berth: task t1 has printed nothing\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
}
