//go:build e2e

package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// run tells how a run stands, as one server has it.
func (m *member) run(id string) workflowRun {
	m.fleet.t.Helper()
	var run workflowRun
	if err := json.Unmarshal([]byte(m.must("workflow", "get", id, "-o", "json")), &run); err != nil {
		m.fleet.t.Fatal(err)
	}
	return run
}

// Of several servers one executes a run, whoever was asked for it, and where that
// one dies the other goes on: no call is made twice.
func TestAWorkflowGoesOnWithAnotherServer(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	// Both of the first tasks go on until it listens: however late one of them
	// starts, the other still runs.
	goOn := closedPort(t, hostIP(t))
	file := f.one.write("flow.star", `
image = "`+busybox+`"

def part(name, on):
    return run.submit(image, ["sh", "-c", "until timeout 5 wget -q -O /dev/null http://`+goOn+`/; do sleep 0.2; done 2>/dev/null; echo " + name], on = on, name = name)

def main():
    first = [part("a", "one"), part("b", "two")]
    text = "".join([f.result()["output"].strip() for f in first])
    return run(image, ["echo", text + "c"], on = "two", name = "c")["output"].strip()
`)
	a, b := f.serve("a"), f.serve("b")
	var h map[string]int
	waitFor(t, "two servers hold one each", 30*time.Second, func() bool { h = b.holders(a, b); return h["one"]+h["two"] == 3 && h["one"] != 0 && h["two"] != 0 })
	// It belongs to the first infrastructure; its holder is to die.
	dies, other := a, b
	if h["one"] == 2 {
		dies, other = b, a
	}
	id := strings.TrimSpace(other.must("workflow", "run", "--detach", file))
	waitFor(t, "both of its first tasks run", 60*time.Second, func() bool {
		running := 0
		for _, call := range other.run(id).AllCalls {
			if call.TaskState != nil && *call.TaskState == berth.StateRunning {
				running++
			}
		}
		return running == 2
	})
	dies.kill()
	listener, err := net.Listen("tcp", goOn)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	waitFor(t, "the run to have ended", 90*time.Second, func() bool { return other.run(id).State.Terminal() })
	run := other.run(id)
	if run.State != berth.RunSucceeded || string(run.Result) != `"abc"` {
		t.Fatalf("%+v: %s %v", run.Run, run.Result, run.Error)
	}
	if len(run.AllCalls) != 3 {
		t.Errorf("%d calls", len(run.AllCalls))
	}
	for _, call := range run.AllCalls {
		if n := f.ledgers[*call.Infrastructure].count(*call.Task); n != 1 {
			t.Errorf("%s: %d pods of task %s existed", *call.Label, n, *call.Task)
		}
	}
}
