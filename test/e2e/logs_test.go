//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A fast log is followed while its connections are cut again and again, and the
// network is away for a while: nothing is doubled, nothing is lost. The log is
// short enough for one file of the kubelet.
func TestLogsAcrossConnectionsThatAreCut(t *testing.T) {
	s := newSite(t)
	network := s.throughProxy()
	image := loudImage(t)
	const lines = 60_000
	run := s.start("run", "--name", "cut", image, strconv.Itoa(lines), "4000")
	for i := range 6 {
		at := fmt.Sprintf("%099d\n", (i+1)*8000)
		waitFor(t, "the log goes on", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), at) })
		if i == 3 {
			network.cut()
			network.restore()
			continue
		}
		network.drop()
	}
	if r := run.wait(within(t, 90*time.Second)); r.code != 0 || strings.Count(r.stdout, "\n") != lines {
		t.Errorf("exit %d, %d lines\n%s", r.code, strings.Count(r.stdout, "\n"), r.stderr)
	}
	if gaps := checkNumbered(t, s, s.byName("cut"), lines); gaps > 0 {
		t.Errorf("%d gaps", gaps)
	}
}

// So it is while the API server itself is killed, and starts again.
func TestLogsAcrossARestartOfTheAPIServer(t *testing.T) {
	s := newSite(t)
	s.mayBeRefused = true // an API server that has just started knows no roles for a moment
	image := loudImage(t)
	const lines = 40_000
	run := s.start("run", "--name", "restart", image, strconv.Itoa(lines), "3000")
	waitFor(t, "the log goes on", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), fmt.Sprintf("%099d\n", lines/8)) })
	localkube(t, "restart", "kube-apiserver", "--kill")
	if r := run.wait(within(t, 120*time.Second)); r.code != 0 || strings.Count(r.stdout, "\n") != lines {
		t.Errorf("exit %d, %d lines\n%s", r.code, strings.Count(r.stdout, "\n"), r.stderr)
	}
	if gaps := checkNumbered(t, s, s.byName("restart"), lines); gaps > 0 {
		t.Errorf("%d gaps", gaps)
	}
}

// stdout and stderr of a step are told apart by the agent, without callbacks.
func TestStdoutAndStderrOfATaskAreToldApart(t *testing.T) {
	o := newOffice(t, false, "")
	file := o.write("task.yaml", "version: 1\nimage: "+busybox+"\nlabels: {sweep: '7'}\nsteps:\n- {name: a, run: 'echo out; sleep 0.1; echo err >&2; sleep 0.1; echo more; printf partial >&2'}\n- {name: b, run: 'echo late >&2'}\n")
	r := o.berth("run", "-f", file)
	if r.code != 0 || r.stdout != "out\nmore\n" || !strings.Contains(r.stderr, "err\npartial\nlate\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	id := o.tasks()[0].ID
	for _, tt := range []struct {
		flags          []string
		stdout, stderr string
	}{
		{nil, "out\nmore\n", "err\npartial\nlate\n"},
		{[]string{"--stream", "stdout"}, "out\nmore\n", ""},
		{[]string{"--stream", "stderr"}, "", "err\npartial\nlate\n"},
		{[]string{"--stream", "stderr", "--tail", "1"}, "", "late\n"},
		{[]string{"--step", "a", "--stream", "stderr"}, "", "err\npartial\n"},
		{[]string{"--grep", "r"}, "more\n", "err\npartial\n"},
	} {
		if r := o.berth(append([]string{"task", "logs", id}, tt.flags...)...); r.code != 0 || r.stdout != tt.stdout || r.stderr != tt.stderr {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", tt.flags, r.code, r.stdout, r.stderr)
		}
	}
	if r := o.berth("task", "logs", "-l", "sweep=7"); r.stdout != "["+id+"] out\n["+id+"] more\n" {
		t.Errorf("by label: %q", r.stdout)
	}
}
