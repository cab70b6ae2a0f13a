package berth_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// What went through a proxy is kept with what else an attempt used, in whatever
// order it is told: an agent tells its end before the proxy's sidecar does.
func TestWhatWentThroughAProxyIsKept(t *testing.T) {
	through := berth.NetworkUse{SentBytes: 1, ReceivedBytes: 2, Connections: 3}
	cpu, zero := 1.5, 0
	measured := berth.AttemptUsage{Usage: berth.Usage{CPUSeconds: &cpu}}
	seen := func(l *berth.Life) berth.Observation {
		o := exited(l, 0)
		o.Outcome.Network = &through
		return o
	}
	for name, end := range map[string]func(l *berth.Life){
		"measured from outside": func(l *berth.Life) {
			l.Observe(seen(l), at(5*time.Second))
			l.Measured(1, measured)
		},
		"told by the agent before": func(l *berth.Life) {
			a := l.Current()
			l.Told(1, a.Pod, berth.AgentEvent{Seq: 1, Type: berth.EventCompleted, At: at(4 * time.Second), Outcome: &berth.Outcome{ExitCode: &zero, Usage: &measured}}, at(4*time.Second))
			l.Observe(seen(l), at(5*time.Second))
			l.Observe(seen(l), at(6*time.Second))
		},
	} {
		l := launched(nil)
		l.Observe(running(l), at(3*time.Second))
		end(l)
		if diff := cmp.Diff(berth.Usage{CPUSeconds: &cpu, Network: &through}, l.Task.Usage); diff != "" || l.Task.State != berth.StateSucceeded {
			t.Errorf("%s: %s (-want +got):\n%s", name, l.Task.State, diff)
		}
	}
}
