//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// arrays are the arrays of the site, newest first.
func (s *site) arrays() []berth.Array {
	s.t.Helper()
	var arrays []berth.Array
	if err := json.Unmarshal([]byte(s.berth("task", "list", "--arrays", "-o", "json").stdout), &arrays); err != nil {
		s.t.Fatal(err)
	}
	return arrays
}

func TestAnArrayIsRunWaitedForAndRetriedAsOne(t *testing.T) {
	s := newSite(t)
	r := s.berth("run", "--name", "sweep", "--array", "0-8:2,9", "--env", "SEED=s{index}", busybox, "--", "sh", "-c",
		"echo $SEED $BERTH_ARRAY_INDEX {item}; test {index} -ne 4 || exit 7")
	if r.code != 7 || r.stdout != "" || !strings.Contains(r.stderr, "5 succeeded, 1 failed") || !strings.Contains(r.stderr, "index 4") {
		t.Errorf("exit %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
	array := s.arrays()[0]
	if array.Size != 6 || array.States[berth.StateSucceeded] != 5 || array.States[berth.StateFailed] != 1 || *array.Name != "sweep" {
		t.Errorf("the array is %+v", array)
	}
	logs := s.berth("task", "logs", array.ID).stdout
	for _, line := range []string{"s0 0 0", "s8 8 8", "s9 9 9"} {
		if strings.Count(logs, line+"\n") != 1 {
			t.Errorf("%q is not once in the logs:\n%s", line, logs)
		}
	}
	r = s.berth("task", "retry", array.ID)
	again := s.arrays()[0]
	if r.code != 7 || again.Size != 1 || again.RetryOf == nil || *again.RetryOf != array.ID {
		t.Errorf("the retry: exit %d, %+v\n%s", r.code, again, r.stderr)
	}
	if task := s.tasks()[0]; task.Array == nil || task.Array.Index != 4 || task.Array.ID != again.ID {
		t.Errorf("the task of the retry is %+v", task.Array)
	}
	if r := s.berth("task", "wait", array.ID); r.code != 7 {
		t.Errorf("waiting for it: exit %d\n%s", r.code, r.stderr)
	}
}

func TestAnArrayOverTheLinesOfAFile(t *testing.T) {
	s := newSite(t)
	file := s.write("names.txt", "ann\nbob smith\n\n$(hostname)\r\n")
	if r := s.berth("run", "--map-over", file, busybox, "--", "echo", "<{item}>"); r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	logs := s.berth("task", "logs", s.arrays()[0].ID).stdout
	for _, line := range []string{"<ann>", "<bob smith>", "<$(hostname)>"} {
		if strings.Count(logs, line+"\n") != 1 {
			t.Errorf("%q is not once in the logs:\n%s", line, logs)
		}
	}
}

func TestAnArrayIsCancelledAsOne(t *testing.T) {
	s := newSite(t)
	s.infra("limits: {max_pods: 3}")
	run := s.start("run", "--array", "0-499", busybox, "sleep", "600")
	waitFor(t, "three run", 60*time.Second, func() bool {
		arrays := s.arrays()
		return len(arrays) == 1 && arrays[0].States[berth.StateRunning] == 3
	})
	array := s.arrays()[0]
	if r := s.berth("task", "cancel", array.ID); r.code != 0 || !strings.Contains(r.stderr, "500 of 500") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if r := run.wait(within(t, 30*time.Second)); r.code != berth.ExitCancelled {
		t.Errorf("who waited got exit %d\n%s", r.code, r.stderr)
	}
}

func TestArraysThatCannotBe(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--array", "0-99999999"}, fmt.Sprint(berth.MaxArray)},
		{[]string{"--array", "5-1"}, "ends (1) before it begins (5)"},
		{[]string{"--array", "1,1"}, "named twice"},
		{[]string{"--array", "-3"}, "not a number"},
		{[]string{"--array", "0-9:0"}, "step"},
		{[]string{"--array", "0-3", "--map-over", "x"}, "none of the others can be"},
		{[]string{"--map-over", s.write("empty", "\n\n")}, "no lines"},
		{[]string{"--map-over", "nowhere"}, "no such file"},
		{[]string{"--array", "0-3", "--priority", "5000"}, "priority 5000"},
	} {
		r := s.berth(append(append([]string{"run"}, tt.flags...), busybox, "true")...)
		if r.code != 125 || !strings.Contains(r.stderr, tt.says) || strings.Count(r.stderr, "\n") > 2 {
			t.Errorf("%v: exit %d, %q", tt.flags, r.code, r.stderr)
		}
	}
	if arrays := s.arrays(); len(arrays) != 0 {
		t.Errorf("%d arrays were made", len(arrays))
	}
}
