//go:build e2e

package chaos

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// ledger is what the programs of tasks tell, each when it begins and when it
// ends. It is outside Berth and outside the cluster, and nothing that the suite
// does touches it. A program goes on only once its line is here.
type ledger struct {
	address string

	mu   sync.Mutex
	runs map[string]map[string]*run // by task's token, by the run's nonce
	open bool                       // the gate, which programs may wait at
}

// run is one execution of a task's program.
type run struct {
	pod   string
	ended bool
	code  string
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(hostIP(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{address: listener.Addr().String(), runs: map[string]map[string]*run{}}
	server := &http.Server{Handler: l}
	go server.Serve(listener) //nolint:errcheck // it ends when it is closed
	t.Cleanup(func() { server.Close() })
	return l
}

// ServeHTTP takes a line. One that comes again, because its answer was lost, is
// known by its nonce.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.URL.Query()
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.URL.Path == "/gate" {
		if !l.open {
			http.Error(w, "it is shut", http.StatusServiceUnavailable)
		}
		return
	}
	token, nonce := line.Get("task"), line.Get("run")
	if l.runs[token] == nil {
		l.runs[token] = map[string]*run{}
	}
	if l.runs[token][nonce] == nil {
		l.runs[token][nonce] = &run{pod: line.Get("pod")}
	}
	if r.URL.Path == "/end" {
		l.runs[token][nonce].ended, l.runs[token][nonce].code = true, line.Get("code")
	}
}

// gate is a script that waits until the gate is opened.
func (l *ledger) gate() string {
	return fmt.Sprintf(`until wget -q -O /dev/null http://%s/gate 2>/dev/null; do sleep 0.3; done`, l.address)
}

func (l *ledger) openGate() {
	l.mu.Lock()
	l.open = true
	l.mu.Unlock()
}

// of are the runs of a task.
func (l *ledger) of(token string) []run {
	l.mu.Lock()
	defer l.mu.Unlock()
	var runs []run
	for _, r := range l.runs[token] {
		runs = append(runs, *r)
	}
	return runs
}

// tokens are the tasks that wrote anything.
func (l *ledger) tokens() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for token := range l.runs {
		all = append(all, token)
	}
	return all
}

// counts are how many runs began, and how many of them ended by themselves.
func (l *ledger) counts() (began, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, runs := range l.runs {
		for _, r := range runs {
			began++
			if r.ended {
				ended++
			}
		}
	}
	return began, ended
}

// program is a shell program that tells the ledger when it begins, does what
// the script says, and tells with which code it ends. The script finds the
// attempt's number in $attempt.
func (l *ledger) program(token, script string) []string {
	lines := []string{
		"trap 'exit 143' TERM",
		"run=$(cat /proc/sys/kernel/random/uuid); attempt=${HOSTNAME##*-}",
		fmt.Sprintf(`say() { until wget -q -O /dev/null "http://%s/$1?task=%s&pod=$HOSTNAME&run=$run&code=$2"; do sleep 0.3; done; }`, l.address, url.QueryEscape(token)),
		"say begin",
		"( " + script + " ) &", // a trap waits for what is in the foreground
		"wait $!; code=$?",
		"say end $code",
		"exit $code",
	}
	return []string{"sh", "-c", strings.Join(lines, "\n")}
}
