//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// rotated is how long a log's file has to be for the kubelet to begin a new one.
const rotated = 10 << 20

// A log of 100 MiB is complete and in order, as it is written and afterwards,
// with the agent and without, though the kubelet begins fourteen new files
// meanwhile and gives nobody the old ones. What is written while it begins one
// it may lose, and a reader that is behind it passes over (see
// TestLogsThatAClusterCannotPassOnHaveGaps): so the program writes a file's
// worth, and goes on once that was read and the next file begun.
func TestLogOf100MiBIsCompleteAndInOrder(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true, "")
	const lines = 1 << 20 // of 100 bytes, with some 45 more each in the kubelet's file
	const part = 72_500   // a few more than make the kubelet begin a new one
	all := map[string]*longLog{"steps": {begun: make(chan struct{})}, "plain": {begun: make(chan struct{})}}
	address := paceOf(t, all)
	for name, log := range all {
		script := fmt.Sprintf(`awk 'BEGIN { for (i = 0; i < %d; i++) { printf "%%099d\n", i; if (i %% %d == %d) { fflush(); system("wget -q -O /dev/null %s/%s/" i) } } }'`,
			lines, part, part-1, address, name)
		args := []string{busybox, "sh", "-c", script}
		if name == "steps" {
			script = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(script)
			args = []string{"-f", o.write("task.yaml", "version: 1\nimage: "+busybox+"\nsteps: [{run: \""+script+"\"}]\n")}
		}
		log.id = strings.TrimSpace(o.must(append([]string{"run", "--detach"}, args...)...))
		log.file = filepath.Join(os.Getenv("BERTH_E2E_STATE"), "pod-logs", o.namespace+"_berth-"+log.id+"-1_*", "main", "0.log")
		close(log.begun)
	}
	var reading sync.WaitGroup
	for name, log := range all {
		reading.Go(func() {
			for when, to := range []*numbered{&log.live, &log.stored} {
				cmd := o.command(nil, "task", "logs", "-f", log.id)
				var stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = to, &stderr
				if err := cmd.Run(); err != nil || to.next != lines || len(to.wrong) > 0 {
					t.Errorf("%s, %s: %v; %d lines of %d; not as written: %q\n%s", name, []string{"as it is written", "afterwards"}[when], err, to.next, lines, to.wrong, stderr.String())
				}
			}
		})
	}
	reading.Wait()
}

// A program that begins loudly is followed on, also where the kubelet stays at
// the end of its first file, as it does when it began the next one before the
// reader had all of the first.
func TestAProgramThatBeginsLoudlyIsFollowedOn(t *testing.T) {
	t.Parallel()
	o := newOffice(t, true, "")
	ids := make([]string, 2)
	for i := range ids {
		ids[i] = strings.TrimSpace(o.must("run", "--detach", busybox, "sh", "-c",
			`awk 'BEGIN { for (i = 0; i < 250000; i++) printf "%099d\n", i }'; sleep 12; echo afterwards; trap exit TERM; sleep 600 & wait`))
	}
	for _, id := range ids {
		waitFor(t, "what is written later", 2*time.Minute, func() bool { return o.must("task", "logs", "--tail", "1", id) == "afterwards\n" })
	}
	o.must(append([]string{"task", "cancel"}, ids...)...)
}

// longLog is a program that writes numbered lines, and what is read of it.
type longLog struct {
	begun        chan struct{} // closed once the following is known
	id, file     string
	live, stored numbered
}

// pause waits until a line was read that is the last of its file.
func (l *longLog) pause(ctx context.Context, line int) {
	select {
	case <-l.begun:
	case <-ctx.Done():
	}
	l.live.past(ctx, line)
	for ctx.Err() == nil {
		if files, _ := filepath.Glob(l.file); len(files) == 1 {
			if info, err := os.Stat(files[0]); err == nil && info.Size() < rotated {
				return
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// paceOf serves programs that write no faster than they are read: asked for
// /NAME/N it answers once the program may go on after line N.
func paceOf(t *testing.T, logs map[string]*longLog) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(hostIP(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{name}/{line}", func(w http.ResponseWriter, r *http.Request) {
		line, err := strconv.Atoi(r.PathValue("line"))
		log := logs[r.PathValue("name")]
		if err != nil || log == nil {
			http.NotFound(w, r)
			return
		}
		log.pause(r.Context(), line)
	})
	server := httptest.NewUnstartedServer(mux)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// numbered checks lines of 100 bytes that hold their own numbers.
type numbered struct {
	mu    sync.Mutex
	grown chan struct{} // closed at the next line
	rest  []byte
	next  int
	wrong []string // the first ten that another one was expected at
}

func (n *numbered) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rest = append(n.rest, p...)
	for {
		line, rest, ok := bytes.Cut(n.rest, []byte("\n"))
		if !ok {
			break
		}
		number, err := strconv.Atoi(string(line))
		if (err != nil || len(line) != 99 || number != n.next) && len(n.wrong) < 10 {
			n.wrong = append(n.wrong, fmt.Sprintf("%.120s instead of %d", bytes.TrimLeft(line, "0"), n.next))
		}
		n.next = max(n.next, number) + 1
		n.rest = rest
	}
	if n.grown != nil {
		close(n.grown)
		n.grown = nil
	}
	return len(p), nil
}

// past waits until a line was read.
func (n *numbered) past(ctx context.Context, line int) {
	for ctx.Err() == nil {
		n.mu.Lock()
		if n.next > line {
			n.mu.Unlock()
			return
		}
		if n.grown == nil {
			n.grown = make(chan struct{})
		}
		grown := n.grown
		n.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
		}
	}
}
