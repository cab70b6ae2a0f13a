package engine

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/logs"
)

// node is a Driver of one pod, whose kubelet begins new files of its log. A
// stream that follows stays in the file that was the newest when it was opened.
type node struct {
	Driver
	mu       sync.Mutex
	newest   string
	drips    string // what a stream that follows brings then, a line every 600 ms
	followed int
	asked    int
}

func (n *node) Logs(ctx context.Context, _ string, since time.Time, follow bool) (io.ReadCloser, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var lines strings.Builder
	for line := range strings.Lines(n.newest) {
		if at, stamped := stampOf([]byte(line)); !stamped || !at.Before(since.Truncate(time.Second)) {
			lines.WriteString(line)
		}
	}
	if !follow {
		n.asked++
		return io.NopCloser(strings.NewReader(lines.String())), nil
	}
	n.followed++
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, strings.NewReader(lines.String()))
		for line := range strings.Lines(n.drips) {
			time.Sleep(600 * time.Millisecond)
			_, _ = io.WriteString(w, line)
		}
		<-ctx.Done()
		w.CloseWithError(ctx.Err())
	}()
	return r, nil
}

func (n *node) begin(file string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.newest = file
}

func (n *node) called(t *testing.T, followed, asked int) {
	t.Helper()
	if f, a := n.calls(); f != followed || a != asked {
		t.Errorf("followed %d times, asked about %d times; want %d and %d", f, a, followed, asked)
	}
}

func (n *node) calls() (followed, asked int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.followed, n.asked
}

// linesOf is n lines of 100 bytes after their times, the first of them at a time.
func linesOf(at time.Time, first, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %099d\n", at.Add(time.Duration(i)*time.Microsecond).UTC().Format("2006-01-02T15:04:05.000000000Z"), first+i)
	}
	return b.String()
}

// following copies the log of a node's pod for the time of a test.
type following struct {
	t     *testing.T
	store *logs.Store
}

func follow(t *testing.T, n *node) *following {
	store, err := logs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w, err := store.Append("task", 1, true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	state := make(chan berth.LogState)
	go func() { state <- testLoop().copyAll(ctx, n, newFollower(false), w, "pod") }()
	t.Cleanup(func() {
		cancel()
		<-state
		_ = w.Close()
		store.Close()
	})
	return &following{t, store}
}

// has checks what is stored: these files, one after the other, and no gap.
func (f *following) has(files ...string) {
	f.t.Helper()
	var got strings.Builder
	for chunk, err := range f.store.Read(f.t.Context(), "task", 1, berth.LogQuery{Timestamps: true}, func() bool { return true }) {
		if err != nil {
			f.t.Fatal(err)
		}
		if chunk.Gap != "" {
			f.t.Errorf("a gap: %s", chunk.Gap)
		}
		got.Write(chunk.Data)
	}
	if want := strings.Join(files, ""); got.String() != want {
		f.t.Errorf("%d bytes are stored of %d", got.Len(), len(want))
	}
}

const longFile = rotatable/100 + 1000 // lines

// A kubelet whose reader was behind when a new file was begun gives the old one
// to its end and then nothing, whatever is written.
func TestALogGoesOnWhereAKubeletStaysInAnOldFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		old, next := linesOf(now, 0, longFile), linesOf(now.Add(time.Second), longFile, 10)
		n := &node{newest: old}
		f := follow(t, n)
		synctest.Wait()
		n.begin(next)
		time.Sleep(nothingComes + nothingComesStill + time.Millisecond)
		f.has(old, next)
		n.called(t, 2, 2)
	})
}

// A program that writes nothing is asked about once, where its log is long
// enough to be in a new file, and until that has something.
func TestAQuietLogIsAskedAboutAsRarelyAsItMay(t *testing.T) {
	for name, is := range map[string]struct {
		lines  int
		newest func(old string) string
		asked  func(int) bool
	}{
		"short":           {longFile / 2, strings.Clone, func(n int) bool { return n == 0 }},
		"the same file":   {longFile, strings.Clone, func(n int) bool { return n == 1 }},
		"an empty file":   {longFile, func(string) string { return "" }, func(n int) bool { return n > 5 && n < 30 }},
		"a broken answer": {longFile, func(string) string { return "unable to retrieve container logs" }, func(n int) bool { return n > 5 && n < 30 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := linesOf(time.Now(), 0, is.lines)
				n := &node{newest: old}
				f := follow(t, n)
				synctest.Wait()
				n.begin(is.newest(old))
				time.Sleep(10 * time.Minute)
				f.has(old)
				if followed, asked := n.calls(); followed != 1 || !is.asked(asked) {
					t.Errorf("followed %d times, asked about %d times", followed, asked)
				}
			})
		})
	}
}

// A file that was empty when it was asked about is found once it has something.
func TestALogGoesOnInAFileThatWasEmptyAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := linesOf(time.Now(), 0, longFile)
		n := &node{newest: old}
		follow(t, n)
		synctest.Wait()
		n.begin("")
		time.Sleep(10 * time.Minute)
		_, asked := n.calls()
		n.begin(linesOf(time.Now(), longFile, 10))
		time.Sleep(nothingComesMost + nothingComesStill)
		n.called(t, 2, asked+2)
	})
}

// A stream that is slow, but not at its end, is left alone: it still has what is
// in the old file, and who is slow is not to be asked more.
func TestAStreamThatBringsSomethingIsNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		old, rest := linesOf(now, 0, longFile), linesOf(now.Add(time.Second), longFile, 100)
		n := &node{newest: old, drips: rest}
		f := follow(t, n)
		synctest.Wait()
		n.begin(linesOf(now.Add(2*time.Second), longFile+100, 1))
		time.Sleep(100*600*time.Millisecond + 100*time.Millisecond)
		f.has(old, rest)
		n.called(t, 1, 1)
	})
}

// The first lines of a new file may be older than the last of the one before,
// by the times that stdout and stderr have; so may all that is there yet.
func TestANewFileIsToldByTheLineThatItLacks(t *testing.T) {
	now := time.Now()
	last := now.Truncate(time.Second).Add(500 * time.Millisecond)
	line := func(at time.Time, text string) string {
		return at.UTC().Format(time.RFC3339Nano) + " " + text + "\n"
	}
	for name, is := range map[string]struct {
		newest            string
		newFile, sameFile bool
	}{
		"the last line":                {line(last.Add(-1), "a") + line(last, "b"), false, true},
		"a later one":                  {line(last.Add(1), "a"), true, false},
		"older and later ones":         {line(last.Add(-1), "a") + line(last.Add(2*time.Second), "b"), true, false},
		"older ones":                   {line(last.Add(-1), "a"), true, false},
		"a line that is very long":     {line(last.Add(-1), strings.Repeat("a", 10<<10)) + line(last, "b"), false, true},
		"the last line, not yet whole": {strings.TrimSuffix(line(last, "b"), "\n"), false, true},
		"nothing":                      {"", false, false},
		"words":                        {"failed to open the log\n", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			newFile, sameFile := testLoop().newestFile(t.Context(), &node{newest: is.newest}, "pod", last)
			if newFile != is.newFile || sameFile != is.sameFile {
				t.Errorf("a new file: %v, the same one: %v", newFile, sameFile)
			}
		})
	}
}
