package diagnosis

import (
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func TestEngineFindings(t *testing.T) {
	s := Subject{Infrastructure: "site-a", Pod: "berth-d3k1-1", Namespace: "berth", Server: "https://cluster.example:6443"}
	for _, test := range []struct {
		finding *Finding
		cause   berth.Cause
		summary string
	}{
		{Cancelled(s, testNow), berth.CauseCancelled, "The task was cancelled."},
		{StartTimedOut(s, 10*time.Minute, "node-1 is fetching image busybox since 10:00:00Z", testNow), berth.CauseStartTimedOut, "Pod berth-d3k1-1 had not started its program after 10m0s, and the cluster did not say why."},
		{Lost(s, testNow), berth.CauseDeletedExternally, "Pod berth-d3k1-1 is gone from site-a, and nobody saw how its program ended."},
		{NodeLost(s, testNow), berth.CauseNodeLost, "Pod berth-d3k1-1 was given up because its node does not answer, so how its program ended is not known."},
		{Unreachable("DNS is down", s, testNow), berth.CauseClusterUnreachable, "The cluster of infrastructure site-a cannot be reached: DNS is down."},
	} {
		if test.finding.Cause != test.cause || test.finding.Summary != test.summary || test.finding.Remedy.Text == "" || !test.finding.Since.Equal(testNow) {
			t.Errorf("%+v", test.finding)
		}
	}
}
