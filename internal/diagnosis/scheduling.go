package diagnosis

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

// The patterns of the scheduler's reasons, from the ErrReason constants of
// pkg/scheduler/framework/plugins.
var (
	insufficient     = regexp.MustCompile(`^Insufficient `)
	noGPU            = regexp.MustCompile(`^Insufficient \S*(?:gpu|nvidia|/mig-)`)
	noCPU            = regexp.MustCompile(`^Insufficient cpu$`)
	noMemory         = regexp.MustCompile(`^Insufficient memory$`)
	noStorage        = regexp.MustCompile(`^Insufficient ephemeral-storage$`)
	tooManyPods      = regexp.MustCompile(`^Too many pods$`)
	selectorMismatch = regexp.MustCompile(`node affinity/selector|didn't match (?:node selector|Pod's node affinity|pod affinity|pod anti-affinity|the requested node name)`)
	nodeTrouble      = regexp.MustCompile(`untolerated taint \{node\.(?:kubernetes\.io|cloudprovider\.kubernetes\.io)/|were unschedulable|had unknown conditions`)
	untolerated      = regexp.MustCompile(`untolerated taint|taints? that the pod didn't tolerate`)
	volumeUnbound    = regexp.MustCompile(`(?i)persistentvolume|pvc\(s\)|volume node affinity|available volume zone|max volume count|enough free storage|no available disk`)
	noNodes          = regexp.MustCompile(`no nodes available|^0/0 nodes`)
)

// unschedulable makes the matcher of one of the scheduler's reasons.
func unschedulable(pattern *regexp.Regexp) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		m := f.scheduling
		if m == nil || f.pod.Spec.NodeName != "" || f.ended() {
			return nil
		}
		found, nodes := m.find(pattern)
		if len(found) == 0 || insufficient.MatchString(found[0].text) && !m.scarcest(nodes) {
			return nil
		}
		h := f.unscheduled()
		h.words["have"] = "has"
		h.words["free"] = "free"
		h.words["reason"] = found[0].text
		h.words["or_later"] = ", or wait: it starts by itself when other work has ended"
		if m.tooLarge(pattern) {
			h.words["free"], h.words["or_later"] = "in all, even when nothing else runs on it", ": waiting doesn't help, no node is that large"
		}
		h.words["taints"] = cmp.Or(m.taints(), "the scheduler does not say which") // it names none since 1.34
		h.words["gpu"], h.words["storage"], h.words["storage_now"], h.words["selector"] = f.gpu(), cmp.Or(f.storage(), "the asked amount"), now(f.storage()), f.selector()
		return h
	}
}

// unscheduled is what is seen of every pod that has no node.
func (f *podFacts) unscheduled() *hit {
	c := f.condition(corev1.PodScheduled)
	h := saw(berth.Evidence{Source: "pod condition PodScheduled", Text: c.Reason + ": " + c.Message}, "nodes", f.scheduling.nodesFit())
	for _, reason := range []string{"TriggeredScaleUp", "NotTriggerScaleUp", "FailedScaleUp"} { // of the cluster autoscaler
		if e, ok := f.newest(reason); ok {
			h.evidence = append(h.evidence, e.evidence())
		}
	}
	return h
}

// gpu says what GPUs the main container asked for.
func (f *podFacts) gpu() string {
	if f.spec != nil {
		for name, q := range f.spec.Resources.Limits {
			if strings.Contains(string(name), "gpu") || strings.HasPrefix(string(name), "nvidia.com/") {
				return q.String() + " " + string(name)
			}
		}
	}
	return "the asked GPUs"
}

// storage says what local disk the main container asked for, if it did.
func (f *podFacts) storage() string {
	if f.spec == nil {
		return ""
	}
	return string(asked(f.spec, corev1.ResourceEphemeralStorage))
}

// now is for remedies: ", now 64", or nothing.
func now(asked string) string {
	if asked == "" {
		return ""
	}
	return ", now " + asked
}

func (f *podFacts) selector() string {
	var parts []string
	for key, value := range f.pod.Spec.NodeSelector {
		parts = append(parts, key+"="+value)
	}
	if len(parts) == 0 {
		return "that were asked for"
	}
	return joinSorted(parts)
}

var schedulingRows = []row{
	{
		cause: berth.CauseInsufficientGPU, rank: 500, onPod: unschedulable(noGPU),
		means:   "No node that the task may use has the GPUs that it asks for.",
		summary: "No node that this task may use has {gpu} {free}: {nodes}.",
		remedy:  "ask for fewer with --gpu{or_later}; if the cluster should have such GPUs, its engineer has to add them or their device plugin",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientCPU, rank: 510, onPod: unschedulable(noCPU),
		means:   "No node that the task may use has that much CPU.",
		summary: "No node that this task may use has {cpu} CPU {free}: {nodes}.",
		remedy:  "ask for less with --cpu{cpu_now}{or_later}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientMemory, rank: 520, onPod: unschedulable(noMemory),
		means:   "No node that the task may use has that much memory.",
		summary: "No node that this task may use has {memory} of memory {free}: {nodes}.",
		remedy:  "ask for less with --memory{memory_now}{or_later}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientEphemeralStorage, rank: 530, onPod: unschedulable(noStorage),
		means:   "No node that the task may use has that much local disk.",
		summary: "No node that this task may use has {storage} of local disk {free}: {nodes}.",
		remedy:  "ask for less with --ephemeral-storage{storage_now}{or_later}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseTooManyPods, rank: 540, onPod: unschedulable(tooManyPods),
		means:   "The nodes hold as many pods as they may; how large the pods are does not matter.",
		summary: "The nodes that this task may use hold as many pods as they may: {nodes}.",
		remedy:  "wait: it starts by itself when other work has ended; more nodes, or more pods a node, are for the cluster's engineer to give",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseVolumeUnbound, rank: 550, onPod: unschedulable(volumeUnbound),
		means:   "A volume that the task mounts does not exist, is not provided yet, or is where no free node can reach it.",
		summary: "A volume of this task is not there for any node: {nodes}.",
		remedy:  "check that the PersistentVolumeClaim exists in namespace {namespace} and is Bound, and that its storage class can provide it",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseNodeSelectorMismatch, rank: 560, onPod: unschedulable(selectorMismatch),
		means:   "No free node has the labels that the infrastructure's pod: node_selector asks for.",
		summary: "No node that is open to this task has the labels {selector}: {nodes}.",
		remedy:  "correct pod: node_selector of infrastructure {infrastructure} in infra.yml, or have the cluster's engineer label a node",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseTaintNotTolerated, rank: 570, onPod: unschedulable(nodeTrouble),
		means:   "Nodes are closed to all new work because they are not ready, out of resources or being serviced (taints that Kubernetes itself sets).",
		summary: "The nodes are closed to new work at the moment: {nodes}.",
		remedy:  "wait, or ask why the nodes are not ready or closed: kubectl describe nodes",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseTaintNotTolerated, rank: 580, onPod: unschedulable(untolerated),
		means:   "The nodes are reserved (tainted) for work that says that it tolerates that.",
		summary: "The nodes are reserved by a taint that this task does not tolerate ({taints}): {nodes}.",
		remedy:  "if you may use these nodes, add the taint to pod: tolerations of infrastructure {infrastructure} in infra.yml; kubectl describe nodes, or the cluster's engineer, says what it is",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientCPU, rank: 590, onPod: unschedulable(noNodes),
		means:   "The cluster has no node at all at the moment.",
		summary: "The cluster has no nodes at the moment, so there is no CPU for this task.",
		remedy:  "wait if the cluster adds nodes by itself; otherwise ask for a node",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 595, onPod: gated,
		means:   "Something in the cluster, often a queueing system, holds the pod back by a scheduling gate.",
		summary: "The cluster holds this task back until {gates} lets it go (a scheduling gate).",
		remedy:  "wait if the cluster has a queue for work, or ask what the gate waits for",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 597, onPod: overlooked,
		means:   "No scheduler has looked at the pod for some seconds.",
		summary: "No scheduler has looked at pod {pod}, which asks for the one named {scheduler}.",
		remedy:  "wait if the cluster is busy; otherwise have it checked that a scheduler named {scheduler} runs in it",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 599, onPod: func(f *podFacts) *hit {
			if f.scheduling == nil || f.pod.Spec.NodeName != "" || f.ended() {
				return nil
			}
			return f.unscheduled()
		},
		means:   "The scheduler finds no node, for a reason that is not in this table.",
		summary: "The cluster finds no node for this task: {nodes}.",
		remedy:  "show the evidence to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
}

// overlooked matches a pod that no scheduler has said anything about.
func overlooked(f *podFacts) *hit {
	if !f.subject.Quiet || f.pod.Spec.NodeName != "" || f.condition(corev1.PodScheduled) != nil || f.ended() || f.pod.DeletionTimestamp != nil {
		return nil
	}
	h := saw(berth.Evidence{Source: "pod status", Text: f.status()}, "scheduler", cmp.Or(f.pod.Spec.SchedulerName, corev1.DefaultSchedulerName))
	return f.withEvents(h)
}

// status is all that the pod's status says where that is little.
func (f *podFacts) status() string {
	text := "phase " + cmp.Or(string(f.pod.Status.Phase), "not set")
	if len(f.pod.Status.Conditions) == 0 {
		text += ", no conditions"
	}
	for _, c := range f.pod.Status.Conditions {
		text += fmt.Sprintf(", %s=%s", c.Type, c.Status)
	}
	if len(f.pod.Status.ContainerStatuses) == 0 {
		text += ", no container statuses"
	}
	return text
}

// withEvents adds all events to a hit that nothing better explains.
func (f *podFacts) withEvents(h *hit) *hit {
	for _, e := range f.events {
		h.evidence = append(h.evidence, e.evidence())
	}
	return h
}

func gated(f *podFacts) *hit {
	c := f.condition(corev1.PodScheduled)
	if f.scheduling == nil || c.Reason != corev1.PodReasonSchedulingGated || f.ended() {
		return nil
	}
	var gates []string
	for _, g := range f.pod.Spec.SchedulingGates {
		gates = append(gates, g.Name)
	}
	h := f.unscheduled()
	h.words["gates"] = cmp.Or(joinSorted(gates), "something")
	return h
}
