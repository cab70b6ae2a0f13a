//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func (s *site) schedules() map[string]berth.Schedule {
	s.t.Helper()
	var list []berth.Schedule
	if err := json.Unmarshal([]byte(s.must("schedule", "list", "-o", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	byName := map[string]berth.Schedule{}
	for _, schedule := range list {
		byName[schedule.Name] = schedule
	}
	return byName
}

// A server starts what is due, also one that was killed meanwhile, and each time
// once.
func TestSchedulesAreStartedByAServer(t *testing.T) {
	t.Parallel()
	o := newOffice(t, false, "")
	file := o.write("flow.star", "def main(word):\n    return run(\""+busybox+"\", [\"echo\", word])[\"output\"].strip()\n")
	r := o.berth("schedule", "create", "flow", "--cron", "* * * * *", "--", "workflow", "run", file, "word=scheduled")
	if r.code != 0 || !strings.Contains(r.stderr, "schedule flow is made; it is due next at ") {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	o.must("schedule", "create", "task", "--cron", "* * * * *", "--timezone", "Asia/Kolkata", "--", "run", "--cpu", "100m", busybox, "echo", "task")
	o.must("schedule", "create", "paused", "--cron", "* * * * *", "--", "run", busybox, "true")
	o.must("schedule", "pause", "paused")
	o.write("flow.star", "this is no program any more\n")
	o.stop(syscall.SIGKILL)
	o.start()
	waitFor(t, "both to have ended well", 150*time.Second, func() bool {
		all := o.schedules()
		flow, task := all["flow"].Last, all["task"].Last
		return flow != nil && task != nil && o.workflowRun(*flow).State == berth.RunSucceeded && o.task(*task).State == berth.StateSucceeded
	})
	all := o.schedules()
	if run := o.workflowRun(*all["flow"].Last); string(run.Result) != `"scheduled"` {
		t.Errorf("%s", run.Result)
	}
	if all["paused"].Last != nil || !all["paused"].Paused {
		t.Errorf("%+v", all["paused"])
	}
	o.must("schedule", "delete", "flow", "task", "paused")
	minutes := map[time.Time]int{}
	for _, task := range o.tasks() {
		if task.Spec.Labels[berth.LabelRun] == "" {
			minutes[task.CreatedAt.Truncate(time.Minute)]++
		}
	}
	for minute, n := range minutes {
		if n != 1 {
			t.Errorf("%d tasks were started at %s", n, minute)
		}
	}
	if len(o.schedules()) != 0 {
		t.Errorf("%+v", o.schedules())
	}
}

func TestSchedulesThatCannotBeMade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	broken := s.write("broken.star", "def main():\n    nosuch()\n")
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"a", "--", "run", busybox}, "--cron is missing"},
		{[]string{"a", "--cron", "0 6 * *", "--", "run", busybox}, "has 4 fields: it takes five"},
		{[]string{"a", "--cron", "0 6 31 2 *", "--", "run", busybox}, "never due"},
		{[]string{"a", "--cron", "0 6 * * *", "--timezone", "Amsterdam", "--", "run", busybox}, `time zone "Amsterdam" is not known`},
		{[]string{"a", "--cron", "0 6 * * *", "--overlap", "both", "--", "run", busybox}, "choose skip, queue or replace"},
		{[]string{"a", "--cron", "0 6 * * *", "--catch-up", "all", "--", "run", busybox}, "choose none or last"},
		{[]string{"a b", "--cron", "0 6 * * *", "--", "run", busybox}, "schedule name"},
		{[]string{"a", "--cron", "0 6 * * *", "--", "task", "list"}, "starts run, call or workflow run, not task list"},
		{[]string{"a", "--cron", "0 6 * * *", "--", "run", "--cpu", "much", busybox}, "much"},
		{[]string{"a", "--cron", "0 6 * * *", "--", "call", "nosuch", "f"}, "nosuch"},
		{[]string{"a", "--cron", "0 6 * * *", "--", "workflow", "run", broken}, "nosuch"},
		{[]string{"a", "--cron", "0 6 * * *", "--", "run", "--on", "nowhere", busybox}, "nowhere"},
	} {
		if r := s.berth(append([]string{"schedule", "create"}, tt.words...)...); r.code != berth.ExitNone || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%v: exit %d, want %q in\n%s", tt.words, r.code, tt.want, r.stderr)
		}
	}
	for _, verb := range []string{"pause", "resume", "delete"} {
		if r := s.berth("schedule", verb, "nosuch"); r.code != berth.ExitNone || !strings.Contains(r.stderr, "there is no schedule nosuch") {
			t.Errorf("%s: exit %d\n%s", verb, r.code, r.stderr)
		}
	}
	s.must("schedule", "create", "once", "--cron", "0 6 * * *", "--", "run", busybox, "true")
	s.must("schedule", "create", "once", "--cron", "0 6 * * *", "--", "run", busybox, "true") // the same
	if r := s.berth("schedule", "create", "once", "--cron", "0 7 * * *", "--", "run", busybox, "true"); r.code != berth.ExitNone || !strings.Contains(r.stderr, "there is a schedule once already") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if len(s.schedules()) != 1 {
		t.Errorf("%+v", s.schedules())
	}
}
