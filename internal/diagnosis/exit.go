package diagnosis

import (
	"fmt"
	"slices"

	"github.com/berth-run/berth"
)

// signals are Linux' own numbers, on every processor that Kubernetes runs on.
var signals = [...]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 10: "SIGUSR1",
	11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP",
	21: "SIGTTIN", 22: "SIGTTOU", 23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO", 30: "SIGPWR", 31: "SIGSYS",
}

// signalHint says what usually sends a signal.
func signalHint(signal int) string {
	switch signal {
	case 9:
		return "; often the kernel sends it for want of memory: try more --memory"
	case 15:
		return "; somebody or the node asked it to stop"
	case 4, 7, 8, 11:
		return "; the program itself or a library of it made a mistake"
	case 6:
		return "; the program gave up by itself (abort)"
	case 31:
		return "; it used a system call that the cluster forbids"
	}
	return ""
}

// exitHint says what an exit code means by custom.
func exitHint(code int) string {
	switch code {
	case 126:
		return "; a shell uses 126 for a command that can't be run"
	case 127:
		return "; a shell uses 127 for a command that it doesn't find"
	}
	return ""
}

// signal returns the number of the signal that ended the main container, 0 for none.
func (f *podFacts) signal() int {
	t := f.terminated()
	switch {
	case t == nil:
		return 0
	case t.Signal > 0 && int(t.Signal) < len(signals):
		return int(t.Signal)
	case t.ExitCode > 128 && int(t.ExitCode-128) < len(signals):
		return int(t.ExitCode - 128)
	}
	return 0
}

// neverRan reports whether the exit code is the runtime's and not the program's.
func (f *podFacts) neverRan() bool { return slices.Contains(startReasons, f.terminated().Reason) }

var exitRows = []row{
	{
		cause: berth.CauseSignalled, rank: 270,
		onPod: func(f *podFacts) *hit {
			n := f.signal()
			if n == 0 || f.terminated().ExitCode == 0 || f.neverRan() {
				return nil
			}
			return saw(f.ending(), "signal", fmt.Sprintf("%d (%s)", n, signals[n]), "code", fmt.Sprint(f.terminated().ExitCode), "hint", signalHint(n))
		},
		means:   "The program was ended by a signal (exit code 128 and the signal's number).",
		summary: "The program was ended by signal {signal}, exit code {code}{hint}.",
		remedy:  "look at what it wrote last: berth task logs {task}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseExitedNonZero, rank: 280,
		onPod: func(f *podFacts) *hit {
			t := f.terminated()
			if t == nil || t.ExitCode == 0 || f.neverRan() {
				return nil
			}
			return saw(f.ending(), "code", fmt.Sprint(t.ExitCode), "hint", exitHint(int(t.ExitCode)))
		},
		means:   "The program itself ended with an exit code that isn't 0.",
		summary: "The program ended by itself with exit code {code}{hint}.",
		remedy:  "look at what it wrote last: berth task logs {task}",
		by:      berth.RemedyByUser,
	},
}

// unknownRows come last: something is wrong, and nothing else matched.
var unknownRows = []row{
	{
		cause: berth.CauseUnknown, rank: 900,
		onPod: func(f *podFacts) *hit {
			if !f.failed() {
				return nil
			}
			h := f.withEnding(saw(f.podStatus(), "reason", f.pod.Status.Reason))
			return f.withEvents(h)
		},
		means:   "The pod failed, and nothing that was seen says why.",
		summary: "Pod {pod} failed, and the cluster does not say why in words that Berth knows.",
		remedy:  "read the evidence, which is all that the cluster told, or show it to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 910,
		onPod: func(f *podFacts) *hit {
			if f.main == nil || f.ended() || f.running() {
				return nil
			}
			w := f.main.State.Waiting
			if w == nil || w.Reason == "" || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" {
				return nil
			}
			h := saw(berth.Evidence{Source: "container status waiting " + word(w.Reason), Text: w.Reason + ": " + w.Message}, "reason", w.Reason)
			return f.withEvents(h)
		},
		means:   "The container waits for something that is not in this table.",
		summary: "The container of pod {pod} does not start ({reason}).",
		remedy:  "read the evidence, which is all that the cluster told, or show it to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 990,
		onError: func(f *errorFacts) *hit { return f.hit() },
		retry:   RetryTransient,
		means:   "The API server refused a request in words that are not in this table.",
		summary: "The cluster did not {verb} {resource}: {message}.",
		remedy:  "show the evidence to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
}
