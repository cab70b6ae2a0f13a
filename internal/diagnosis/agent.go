package diagnosis

import (
	"fmt"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// agentRows are what only the agent inside a container can see.
var agentRows = []row{
	{
		cause: berth.CauseResultMissing, rank: 960, patience: berth.PatienceNone,
		means:   "The program of a function ended well, and its output holds no result of the declared name.",
		summary: "The program ended with exit code 0 and gave no result.",
		remedy:  "have the program write what container.yml declares as output, such as NAME: VALUE; its output is in berth task logs {task}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseResultMalformed, rank: 961, patience: berth.PatienceNone,
		means:   "The program of a function ended well, and its output is not YAML, not of the declared type, or too large.",
		summary: "The program ended with exit code 0 and its result can't be used.",
		remedy:  "have the program write what container.yml declares as output, such as NAME: VALUE; everything else belongs on stderr, or use capture: marked",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseCallbackUnreachable, rank: 962, patience: berth.PatienceNone,
		means:   "A pod does not reach the control plane at callback_to. Tasks work without; results come a second later, and heartbeats not at all.",
		summary: "A pod can't reach the control plane.",
		remedy:  "check that callback_to of infrastructure {infrastructure} in infra.yml is an address that pods can reach (a firewall, a NetworkPolicy), that berth server listens there, and that its certificate is for that name (--advertise)",
		by:      berth.RemedyByUser,
	},
}

// Completed says why what an agent ran failed; nil when it succeeded. What the
// agent says itself is worded by it; the rest is as for any container.
func Completed(c *agent.Completion, subject Subject, now time.Time) *Finding {
	words := subject.words()
	if c.Fault == nil {
		if c.ExitCode == 0 {
			return nil
		}
		evidence := berth.Evidence{Source: "agent", Text: fmt.Sprintf("exit code %d", c.ExitCode)}
		if n := c.ExitCode - 128; n > 0 && n < len(signals) {
			return exitRows[0].finding(saw(evidence, "signal", fmt.Sprintf("%d (%s)", n, signals[n]), "code", fmt.Sprint(c.ExitCode), "hint", signalHint(n)), words, now)
		}
		return exitRows[1].finding(saw(evidence, "code", fmt.Sprint(c.ExitCode), "hint", exitHint(c.ExitCode)), words, now)
	}
	f := faultRow(c.Fault.Cause).finding(&hit{}, words, now)
	f.Cause = c.Fault.Cause
	f.Summary = clean(c.Fault.Summary)
	if c.Fault.Remedy != "" {
		f.Remedy = berth.Remedy{Text: fill(clean(c.Fault.Remedy), words), By: berth.RemedyByUser}
	}
	f.Evidence = nil
	f.addEvidence(c.Fault.Evidence)
	return f
}

// faultRow is the row of a cause that an agent names; of what it may not name,
// the one for the unknown.
func faultRow(cause berth.Cause) *row {
	for _, rows := range [][]row{agentRows, exitRows, containerRows, endingRows} {
		for i := range rows {
			if rows[i].cause == cause {
				return &rows[i]
			}
		}
	}
	return &unknownRows[0]
}

// AgentOutcome is how an attempt with an agent ended: what the cluster knows
// better, such as that the pod was evicted, or what the agent left. The code and
// the finding are of the container's own end.
func AgentOutcome(c *agent.Completion, code int, finding *Finding, subject Subject, now time.Time) *berth.Outcome {
	known := finding != nil && finding.Cause != berth.CauseExitedNonZero && finding.Cause != berth.CauseSignalled && finding.Cause != berth.CauseUnknown
	if c == nil {
		// Killed before it could report.
		out := &berth.Outcome{ExitCode: &code}
		if finding != nil {
			out.Diagnosis, out.ByCluster = &finding.Diagnosis, finding.Infrastructure
			if finding.ExitCode != nil {
				out.ExitCode = finding.ExitCode
			}
		} else {
			c = &agent.Completion{ExitCode: code, Fault: &agent.Fault{Cause: berth.CauseResultMissing, Summary: "The container ended with exit code 0, and its agent left no report."}}
			out.Diagnosis = &Completed(c, subject, now).Diagnosis
		}
		return out
	}
	if known && (c.Deferred || c.Fault == nil && c.ExitCode != 0) {
		out := c.Outcome(&finding.Diagnosis)
		out.ByCluster = finding.Infrastructure
		return out
	}
	if f := Completed(c, subject, now); f != nil {
		return c.Outcome(&f.Diagnosis)
	}
	return c.Outcome(nil)
}
