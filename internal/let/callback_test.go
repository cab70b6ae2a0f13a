package let

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// control is a control plane that takes reports. What is in answers is the
// status of the next reports; after that they are accepted.
type control struct {
	*httptest.Server
	mu      sync.Mutex
	answers []int
	reports []agent.Report
	came    chan struct{} // one for each report
	hold    chan struct{} // where it isn't nil, a report is answered once it gives something
}

func newControl(t *testing.T, answers ...int) *control {
	c := &control{answers: answers, came: make(chan struct{}, 100)}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var report agent.Report
	if err := json.NewDecoder(r.Body).Decode(&report); err != nil || !report.Valid() || r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer token" {
		http.Error(w, "not a report", http.StatusTeapot)
		return
	}
	c.mu.Lock()
	c.reports = append(c.reports, report)
	status := http.StatusOK
	if len(c.answers) > 0 {
		status, c.answers = c.answers[0], c.answers[1:]
	}
	c.mu.Unlock()
	c.came <- struct{}{}
	if c.hold != nil {
		<-c.hold
	}
	w.WriteHeader(status)
}

// got are the events of each report, by their numbers.
func (c *control) got() (seqs [][]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, report := range c.reports {
		var of []int
		for _, e := range report.Events {
			of = append(of, e.Seq)
		}
		seqs = append(seqs, of)
	}
	return seqs
}

func (c *control) want(t *testing.T, want string) {
	t.Helper()
	if got := fmt.Sprint(c.got()); got != want {
		t.Errorf("reports of %s, want %s", got, want)
	}
}

// sender sends to a URL until the test ends.
func sender(t *testing.T, url string, ca ...string) *callback {
	c := newCallback(&agent.Order{Task: "task", Attempt: 1, Pod: "pod", Callback: &agent.Callback{URL: url, Token: "token", Heartbeat: time.Hour, CA: strings.Join(ca, "")}})
	t.Cleanup(c.close)
	return c
}

var (
	ready     = agent.Event{Type: berth.EventReady}
	completed = agent.Event{Type: berth.EventCompleted, Completion: &agent.Completion{ExitCode: 3}}
)

func TestWhatHappensDuringAReportGoesWithTheNext(t *testing.T) {
	t.Parallel()
	server := newControl(t)
	server.hold = make(chan struct{})
	c := sender(t, server.URL)
	c.send(ready)
	<-server.came
	for range 3 {
		c.send(ready)
	}
	close(server.hold)
	c.finish(completed)
	got := server.got()
	// The end may have been in time for the second.
	if all := slices.Concat(got...); len(got) > 3 || len(got[0]) != 1 || !slices.Equal(all, []int{1, 2, 3, 4, 5}) {
		t.Errorf("reports of %v", got)
	}
}

func TestTheEndHasArrivedWhenFinishReturns(t *testing.T) {
	t.Parallel()
	server := newControl(t)
	c := sender(t, server.URL)
	c.finish(completed)
	server.want(t, "[[1]]")
	r := server.reports[0]
	if e := r.Events[0]; r.Task != "task" || r.Pod != "pod" || r.Attempt != 1 || e.Completion == nil || e.Completion.ExitCode != 3 {
		t.Errorf("got %s", toJSON(t, r))
	}
}

func TestAReportThatIsNotTakenNowIsSentAgain(t *testing.T) {
	t.Parallel()
	server := newControl(t, 503)
	c := sender(t, server.URL)
	c.send(ready)
	<-server.came
	<-server.came
	c.finish(completed)
	server.want(t, "[[1] [1] [2]]")
}

func TestAReportThatIsRefusedIsTheLast(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404, 410, 418, 301} {
		server := newControl(t, status)
		c := sender(t, server.URL)
		c.send(ready)
		<-c.done
		c.send(ready)
		start := time.Now()
		c.finish(completed)
		if took := time.Since(start); took > unreachable/2 {
			t.Errorf("%d: the end took %s", status, took)
		}
		server.want(t, "[[1]]")
	}
}

func TestARefusalOfTheEndEndsTheWaitForIt(t *testing.T) {
	t.Parallel()
	server := newControl(t, 200, 410)
	c := sender(t, server.URL)
	c.send(ready)
	eventually(t, "it is connected", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.connected })
	start := time.Now()
	c.finish(completed)
	if took := time.Since(start); took > reachable/2 {
		t.Errorf("the end took %s", took)
	}
	server.want(t, "[[1] [2]]")
}

func TestATokenFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 307, 308} {
		other := newControl(t)
		server := httptest.NewServer(http.RedirectHandler(other.URL, status))
		t.Cleanup(server.Close)
		c := sender(t, server.URL)
		c.finish(completed)
		<-c.done
		other.want(t, "[]")
	}
}

func TestOnlyAServerOfTheGivenAuthorityIsTrusted(t *testing.T) {
	t.Parallel()
	server := newControl(t)
	secure := httptest.NewUnstartedServer(server)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the stranger
	secure.StartTLS()
	t.Cleanup(secure.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	sender(t, secure.URL, ca).finish(completed)
	server.want(t, "[[1]]")
	stranger := sender(t, secure.URL)
	if got := stranger.post([]agent.Event{completed}); got != again {
		t.Errorf("got %v", got)
	}
	server.want(t, "[[1]]")
}

func TestWithoutAnAddressNobodyIsCalled(t *testing.T) {
	t.Parallel()
	for _, order := range []*agent.Order{{}, {Callback: &agent.Callback{}}} {
		r := newReporter(order)
		r.tell(ready)
		r.close()
		if r.callback != nil {
			t.Error("there is a callback")
		}
	}
}
