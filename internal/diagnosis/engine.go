package diagnosis

import (
	"time"

	"github.com/berth-run/berth"
)

// engineRows are the causes that no text of the cluster tells: the engine
// knows them, and takes the texts from here.
var engineRows = []row{
	{
		cause: berth.CauseCancelled, rank: 950, patience: berth.PatienceNone,
		means:   "Somebody cancelled the task.",
		summary: "The task was cancelled.",
		remedy:  "nothing; submit it again if that was a mistake",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseStartTimedOut, rank: 951, patience: berth.PatienceNone, infrastructure: true,
		means:   "The program had not started when the infrastructure's start_timeout was over, and nothing that was seen says why.",
		summary: "Pod {pod} had not started its program after {limit}, and the cluster did not say why.",
		remedy:  "if the image is large or the cluster adds nodes slowly, raise grace: start_timeout of infrastructure {infrastructure} in infra.yml; otherwise show kubectl -n {namespace} describe pod {pod} to the cluster's engineer",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseDeletedExternally, rank: 952, patience: berth.PatienceNone,
		means:   "The pod is gone, and nobody saw how it ended. The task is lost, unless it is idempotent.",
		summary: "Pod {pod} is gone from {infrastructure}, and nobody saw how its program ended.",
		remedy:  "check what the program did before you run it again; --idempotent lets Berth run it again by itself",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseNodeLost, rank: 953, patience: berth.PatienceNone, infrastructure: true,
		means:   "The pod never finished being deleted, because its node doesn't answer. It was deleted by force.",
		summary: "Pod {pod} was given up because its node does not answer, so how its program ended is not known.",
		remedy:  "check what the program did before you run it again; ask what is wrong with the node",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseClusterUnreachable, rank: 954, patience: berth.PatienceForever, retry: RetryUnreachable,
		means:   "The engine hears nothing of the cluster, and knows why.",
		summary: "The cluster of infrastructure {infrastructure} cannot be reached: {why}.",
		remedy:  "check the network to {server} (a VPN, a proxy); tasks go on when the cluster is back",
		by:      berth.RemedyByUser,
	},
}

// Cancelled says that somebody cancelled the task.
func Cancelled(subject Subject, now time.Time) *Finding {
	return made(0, subject, now)
}

// StartTimedOut says that the program had not started after the limit, when
// nothing else explains why. What was being done about it last may be empty.
func StartTimedOut(subject Subject, limit time.Duration, last string, now time.Time) *Finding {
	f := made(1, subject, now, "limit", limit.String())
	f.addEvidence([]berth.Evidence{{Source: "what was waited for last", Text: last}})
	return f
}

// Lost says that the pod is gone and nobody saw how it ended.
func Lost(subject Subject, now time.Time) *Finding {
	return made(2, subject, now)
}

// NodeLost says that the pod was deleted by force because its node was silent.
func NodeLost(subject Subject, now time.Time) *Finding {
	return made(3, subject, now)
}

// Unreachable says that the cluster can't be reached, for a reason in words.
func Unreachable(reason string, subject Subject, now time.Time) *Finding {
	return made(4, subject, now, "why", reason)
}

func made(index int, subject Subject, now time.Time, pairs ...string) *Finding {
	h := saw(berth.Evidence{}, pairs...)
	h.evidence = nil
	return engineRows[index].finding(h, subject.words(), now)
}
