package diagnosis

import (
	"slices"
	"strings"

	"github.com/berth-run/berth"
)

// kubeletRejects are further reasons of a kubelet that doesn't take a pod,
// from pkg/kubelet/lifecycle/predicate.go and its admission handlers.
var kubeletRejects = []string{"UnexpectedAdmissionError", "TopologyAffinityError", "PodOSSelectorNodeLabelDoesNotMatch", "PodOSNotSupported", "PodFeatureUnsupported", "InvalidNodeInfo", "SupplementalGroupsPolicyNotSupported", "AppArmor", "SysctlForbidden", "ProcMountType"}

// rejected makes the matcher of a kubelet that turned the pod away.
func rejected(match func(reason string) bool) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		if !f.failed() || f.started() || !match(f.pod.Status.Reason) {
			return nil
		}
		return saw(f.podStatus(), "reason", f.pod.Status.Reason)
	}
}

func is(reasons ...string) func(string) bool {
	return func(reason string) bool { return slices.Contains(reasons, reason) }
}

// rejectionRows: the node that the scheduler chose turned the pod away.
var rejectionRows = []row{
	{
		cause: berth.CauseInsufficientCPU, rank: 140, infrastructure: true, onPod: rejected(is("OutOfcpu")),
		means:   "The node that was chosen had no CPU left when the pod arrived.",
		summary: "{the_node} turned the task away: it had no {cpu} CPU left when the task arrived.",
		remedy:  "run it again",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientMemory, rank: 141, infrastructure: true, onPod: rejected(is("OutOfmemory")),
		means:   "The node that was chosen had no memory left when the pod arrived.",
		summary: "{the_node} turned the task away: it had no {memory} of memory left when the task arrived.",
		remedy:  "run it again",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientEphemeralStorage, rank: 142, infrastructure: true, onPod: rejected(is("OutOfephemeral-storage")),
		means:   "The node that was chosen had no local disk left when the pod arrived.",
		summary: "{the_node} turned the task away: it had not enough local disk left when the task arrived.",
		remedy:  "run it again",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseTooManyPods, rank: 143, infrastructure: true, onPod: rejected(is("OutOfpods")),
		means:   "The node that was chosen held as many pods as it may when this one arrived.",
		summary: "{the_node} turned the task away: it held as many pods as it may when the task arrived.",
		remedy:  "run it again",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientGPU, rank: 144, infrastructure: true,
		onPod: func(f *podFacts) *hit {
			return rejected(func(reason string) bool {
				return strings.HasPrefix(reason, "OutOf") && noGPU.MatchString("Insufficient "+strings.TrimPrefix(reason, "OutOf")) ||
					reason == "UnexpectedAdmissionError" && strings.Contains(f.pod.Status.Message, "gpu")
			})(f)
		},
		means:   "The node that was chosen could not give the pod its GPUs when it arrived.",
		summary: "{the_node} turned the task away: it could not give it its GPUs ({reason}).",
		remedy:  "run it again; if this happens often, have the node's GPUs and their device plugin looked at",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseNodeSelectorMismatch, rank: 145, infrastructure: true, onPod: rejected(is("NodeAffinity")),
		means:   "The node's labels changed between the choice and the pod's arrival.",
		summary: "{the_node} turned the task away: its labels no longer match what the task asks for.",
		remedy:  "run it again",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseSandboxFailed, rank: 149, infrastructure: true, onPod: rejected(func(reason string) bool {
			return strings.HasPrefix(reason, "OutOf") || slices.Contains(kubeletRejects, reason)
		}),
		means:   "The node turned the pod away when it arrived, for a reason of its own.",
		summary: "{the_node} turned the task away when it arrived ({reason}).",
		remedy:  "run it again; if this happens often, show the evidence to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
}
