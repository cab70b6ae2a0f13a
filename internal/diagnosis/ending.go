package diagnosis

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

var (
	// Reasons of the condition DisruptionTarget, and of the pod's own status.
	nodeLossReasons = []string{"DeletionByPodGC", "DeletionByTaintManager"}
	shutdownText    = regexp.MustCompile(`node shutdown|node is shutting down`)
	ownLimit        = regexp.MustCompile(`exceeded its local ephemeral storage limit|exceeds the total limit of containers|Usage of EmptyDir volume .* exceeds the limit`)
	lowOn           = regexp.MustCompile(`low on resource: ([^\s.]+)|had condition: \[?([^\].]+)`)
)

// message is what the pod's own status says.
func (f *podFacts) message() string { return plain(f.pod.Status.Message) }

// podStatus is what the pod's own status says as evidence.
func (f *podFacts) podStatus() berth.Evidence {
	text := f.pod.Status.Reason
	if f.pod.Status.Message != "" {
		text += ": " + f.pod.Status.Message
	}
	return berth.Evidence{Source: "pod status " + word(string(f.pod.Status.Phase)), Text: text}
}

// ending is the evidence of how the main container ended.
func (f *podFacts) ending() berth.Evidence {
	t := f.terminated()
	if t == nil {
		return berth.Evidence{}
	}
	text := fmt.Sprintf("exit code %d", t.ExitCode)
	if t.Signal != 0 {
		text += fmt.Sprintf(", signal %d", t.Signal)
	}
	if t.Message != "" {
		text += ": " + t.Message
	}
	return berth.Evidence{Source: "container status terminated " + word(t.Reason), Text: text}
}

// withEnding adds how the main container ended to a hit on the pod.
func (f *podFacts) withEnding(h *hit) *hit {
	if e := f.ending(); e.Text != "" {
		h.evidence = append(h.evidence, e)
	}
	return h
}

func conditionEvidence(c *corev1.PodCondition) berth.Evidence {
	return berth.Evidence{Source: "pod condition " + string(c.Type), Text: c.Reason + ": " + c.Message}
}

func disruptedBy(reasons ...string) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		if c := f.disrupted(reasons...); c != nil {
			return f.withEnding(saw(conditionEvidence(c)))
		}
		return nil
	}
}

// deadline returns when the pod's time is over; zero when it has no limit.
func (f *podFacts) deadline() time.Time {
	if f.pod.Status.StartTime == nil || f.pod.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}
	}
	return f.pod.Status.StartTime.Add(time.Duration(*f.pod.Spec.ActiveDeadlineSeconds) * time.Second)
}

// overDeadline reports whether it was the pod's time limit that ended the main
// container. With sidecars the pod may outlive it and run into the limit alone.
func (f *podFacts) overDeadline() bool {
	return f.pod.Status.Reason == "DeadlineExceeded" && !f.endedBefore(f.deadline())
}

// deletionAsked returns when somebody asked for the pod to be deleted.
func (f *podFacts) deletionAsked() time.Time {
	d := f.pod.DeletionTimestamp
	if d == nil {
		return time.Time{}
	}
	if grace := f.pod.DeletionGracePeriodSeconds; grace != nil {
		return d.Add(-time.Duration(*grace) * time.Second)
	}
	return d.Time
}

func (f *podFacts) deleted(started bool) *hit {
	asked := f.deletionAsked()
	if asked.IsZero() || f.started() != started || started && (!f.ended() || f.endedBefore(asked)) {
		return nil
	}
	return f.withEnding(saw(berth.Evidence{Source: "pod metadata deletionTimestamp", Text: f.pod.DeletionTimestamp.UTC().Format(time.RFC3339)}))
}

func (f *podFacts) memoryLimit() string {
	if f.spec != nil {
		if q, ok := f.spec.Resources.Limits[corev1.ResourceMemory]; ok {
			return q.String()
		}
	}
	return cmp.Or(string(f.subject.Memory), "the node's own memory")
}

var endingRows = []row{
	{
		cause: berth.CauseNodeLost, rank: 100, infrastructure: true, patience: berth.PatienceForever, onPod: disruptedBy(nodeLossReasons...),
		means:   "The node went away or stopped answering, so the cluster took its pods off it.",
		summary: "{the_node} is gone or stopped answering, and the cluster gave up the task's pod on it.",
		remedy:  "run it again; if this happens often, ask what is wrong with the node",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseNodeLost, rank: 105, infrastructure: true,
		onPod: func(f *podFacts) *hit {
			shutdown := f.reason("Terminated", "Shutdown", "NodeShutdown") && (f.pod.Status.Reason == "NodeShutdown" || shutdownText.MatchString(f.message()))
			if !shutdown || !f.failed() {
				return nil
			}
			return f.withEnding(saw(f.podStatus()))
		},
		means:   "The node was shut down while the pod was on it.",
		summary: "{the_node} was shut down, and the task's pod with it.",
		remedy:  "run it again; ask when nodes are shut down, and whether work can be moved before",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CausePreempted, rank: 110, infrastructure: true,
		onPod: func(f *podFacts) *hit {
			if f.reason("Preempting") && f.failed() {
				return f.withEnding(saw(f.podStatus()))
			}
			return disruptedBy("PreemptionByScheduler")(f)
		},
		means:   "The pod had to make room for work of higher priority.",
		summary: "The task had to make room on {node} for work of higher priority.",
		remedy:  "run it again, or ask for a priority class and set pod: priority_class of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseEvicted, rank: 120,
		onPod: func(f *podFacts) *hit {
			if !f.reason("Evicted") || !ownLimit.MatchString(f.message()) {
				return nil
			}
			return f.withEnding(saw(f.podStatus(), "storage_now", now(f.storage()), "what", strings.TrimRight(f.message(), ". ")))
		},
		means:   "The task wrote more to local disk than its own limit, so the node ended it.",
		summary: "{the_node} ended the task because it wrote more to local disk than it may: {what}.",
		remedy:  "ask for more with --ephemeral-storage{storage_now}, or write less to local disk",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseEvicted, rank: 125, infrastructure: true,
		onPod: func(f *podFacts) *hit {
			if !f.reason("Evicted") {
				return nil
			}
			resource := "something"
			if m := lowOn.FindStringSubmatch(f.message()); m != nil {
				resource = cmp.Or(m[1], m[2])
			}
			return f.withEnding(saw(f.podStatus(), "resource", resource))
		},
		means:   "The node ran low on memory or disk and ended pods, this one among them.",
		summary: "{the_node} ran low on {resource} and ended the task to stay alive.",
		remedy:  "run it again; asking for what it really needs with --memory and --ephemeral-storage makes it less likely to be chosen",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseEvicted, rank: 127, infrastructure: true, onPod: func(f *podFacts) *hit {
			if !f.ended() && f.pod.DeletionTimestamp == nil {
				return nil
			}
			return disruptedBy("EvictionByEvictionAPI")(f)
		},
		means:   "The node is being emptied for servicing (kubectl drain), or an autoscaler gives it back.",
		summary: "The task was moved off {node}, which is being emptied for servicing or given back.",
		remedy:  "run it again; ask when nodes are emptied",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseTimedOut, rank: 130,
		onPod: func(f *podFacts) *hit {
			if !f.overDeadline() {
				return nil
			}
			limit := "its time limit"
			if s := f.pod.Spec.ActiveDeadlineSeconds; s != nil {
				limit = "its time limit of " + (time.Duration(*s) * time.Second).String()
			}
			return f.withEnding(saw(f.podStatus(), "limit", limit))
		},
		means:   "The attempt took longer than --timeout; fetching the image counts.",
		summary: "The task was ended because it took longer than {limit}, counted from its start on the node.",
		remedy:  "give it more time with --timeout, or less to do",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseOOMKilled, rank: 150,
		onPod: func(f *podFacts) *hit {
			if t := f.terminated(); t == nil || t.Reason != "OOMKilled" {
				return nil
			}
			return saw(f.ending(), "limit", f.memoryLimit())
		},
		means:   "The program used more memory than its limit, so the kernel ended it.",
		summary: "The program was ended by the kernel because it used more memory than its limit of {limit}.",
		remedy:  "ask for more with --memory{memory_now}, or use less",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseDeletedExternally, rank: 160, infrastructure: true, onPod: func(f *podFacts) *hit { return f.deleted(false) },
		means:   "Somebody or something else deleted the pod before its program started.",
		summary: "Somebody else deleted pod {pod} before its program started.",
		remedy:  "run it again; ask who deletes pods in namespace {namespace}",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseDeletedExternally, rank: 165, onPod: func(f *podFacts) *hit { return f.deleted(true) },
		means:   "Somebody or something else deleted the pod while its program ran.",
		summary: "Somebody else deleted pod {pod} while its program ran.",
		remedy:  "run it again; ask who deletes pods in namespace {namespace}",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseNodeLost, rank: 170, infrastructure: true,
		onPod: func(f *podFacts) *hit {
			t := f.terminated()
			switch {
			case t != nil && t.Reason == "ContainerStatusUnknown":
				return saw(f.ending())
			case f.reason("NodeLost"), f.pod.Status.Phase == corev1.PodUnknown:
				return f.withEnding(saw(f.podStatus()))
			}
			return nil
		},
		means:   "The node lost sight of the container, so how it ended is not known.",
		summary: "{the_node} was lost or lost sight of the container, so how the program ended is not known.",
		remedy:  "look at the task's output for how far it got, and run it again",
		by:      berth.RemedyByUser,
	},
}
