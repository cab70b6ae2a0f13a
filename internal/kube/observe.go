package kube

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/diagnosis"
)

// observe puts a pod into the engine's terms. The status of the main container
// decides, not the pod's phase: sidecars delay that.
func (d *Driver) observe(pod *corev1.Pod, gone bool) berth.Observation {
	attempt, _ := strconv.Atoi(pod.Labels[berth.LabelAttempt])
	o := berth.Observation{
		TaskID: pod.Labels[berth.LabelTask], Attempt: attempt, Pod: pod.Name, UID: string(pod.UID),
		Node: pod.Spec.NodeName, Address: pod.Status.PodIP, Leaving: pod.DeletionTimestamp != nil, Gone: gone,
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == MainContainer {
			o.Image = c.Image
		}
	}
	main := mainStatus(pod)
	if main != nil {
		o.ImageID = main.ImageID
		o.Pulled = main.ImageID != ""
		switch {
		case main.State.Running != nil:
			o.StartedAt = main.State.Running.StartedAt.Time
		case removed(main) != nil && pod.Status.StartTime != nil:
			o.StartedAt = pod.Status.StartTime.Time // or somewhat later
		case main.State.Terminated != nil:
			if t := main.State.Terminated.StartedAt.Time; t.Unix() > 0 {
				o.StartedAt = t
			}
		}
	}
	nonce, withAgent := hasAgent(pod)
	said := pod
	if withAgent && main != nil && main.State.Terminated != nil {
		if _, _, err := agent.DecodeMessage([]byte(main.State.Terminated.Message)); err == nil {
			said = pod.DeepCopy() // what the agent left there is for us, not for a person
			mainStatus(said).State.Terminated.Message = ""
		}
	}
	events, eventsSeen := d.events.of(pod.UID)
	subject := d.subject(pod)
	subject.Quiet = d.events.quiet(pod.UID)
	subject.Proxy = d.proxySaid(pod, gone)
	finding := diagnosis.Pod(said, MainContainer, events, eventsSeen, subject, time.Now())
	o.Outcome, o.EndedAt = outcome(pod, main, finding, gone)
	if finding != nil && finding.Began && o.StartedAt.IsZero() {
		o.StartedAt = o.EndedAt // what may have begun counts as a start
	}
	if withAgent && o.Outcome != nil && !o.Outcome.Unknown && main != nil && main.State.Terminated != nil && !o.Outcome.NeverStarted {
		c, wait := d.completion(pod, main.State.Terminated, nonce, gone)
		if wait {
			o.Outcome, o.EndedAt = nil, time.Time{}
			return o
		}
		o.Outcome = diagnosis.AgentOutcome(c, int(main.State.Terminated.ExitCode), finding, subject, time.Now())
		if d := o.Outcome.Diagnosis; d != nil && finding == nil || d != nil && d != &finding.Diagnosis {
			d.Evidence = append(d.Evidence, diagnosis.ProxyEvidence(pod)...)
		}
	}
	if o.Outcome != nil && !o.Outcome.NeverStarted {
		use, wait := d.transferred(pod, gone)
		if wait {
			// Why it failed is known, and is shown meanwhile.
			o.Diagnosis, o.Patience = o.Outcome.Diagnosis, berth.PatienceForever
			o.Outcome, o.EndedAt = nil, time.Time{}
			return o
		}
		o.Outcome.Network = use
	}
	if finding != nil && o.Outcome == nil {
		o.Diagnosis, o.Patience = &finding.Diagnosis, finding.Patience
	}
	if finding == nil && !gone {
		progress := diagnosis.ProgressOf(pod, MainContainer, events, eventsSeen, subject)
		o.Pulling, o.Waits = progress.Pulling, progress.Text
	}
	return o
}

func mainStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == MainContainer {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

// removed returns what a kubelet says of a container that was removed before it
// had looked how it ended, nil where it looked. It removes those of a pod that it
// evicts, and first shows them as waiting to be made, with that as the last time
// that they ended. One that it makes once more has that too, until it runs.
func removed(main *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	var t *corev1.ContainerStateTerminated
	switch {
	case main == nil:
	case main.State.Terminated != nil:
		t = main.State.Terminated
	case main.State.Waiting != nil:
		t = main.LastTerminationState.Terminated
	}
	if t == nil || t.Reason != "ContainerStatusUnknown" {
		return nil
	}
	return t
}

// outcome returns how the attempt ended, nil while it has not or nobody saw it.
func outcome(pod *corev1.Pod, main *corev1.ContainerStatus, finding *diagnosis.Finding, gone bool) (*berth.Outcome, time.Time) {
	out := &berth.Outcome{}
	if finding != nil {
		out.Diagnosis, out.ByCluster, out.ExitCode = &finding.Diagnosis, finding.Infrastructure, finding.ExitCode
	}
	if t := removed(main); t != nil && (main.State.Terminated != nil || pod.Status.Phase == corev1.PodFailed) {
		if pod.Status.Reason == "Evicted" && finding != nil && !finding.Infrastructure {
			out.ExitCode = ptr(int(t.ExitCode)) // by the kubelet that killed it, for what it did
		} else {
			out.Unknown, out.ExitCode = true, nil
		}
		return out, t.FinishedAt.Time
	}
	if main != nil && main.State.Terminated != nil {
		t := main.State.Terminated
		if out.ExitCode == nil {
			out.ExitCode = ptr(int(t.ExitCode))
		}
		if t.ExitCode == 0 && pod.Status.Reason != "DeadlineExceeded" && (finding == nil || !finding.Void) {
			out.Diagnosis, out.ByCluster = nil, false // it came to its end, whatever happened to the pod
		}
		out.NeverStarted = t.StartedAt.Unix() <= 0 && (finding == nil || !finding.Began)
		return out, t.FinishedAt.Time
	}
	started := main != nil && main.State.Running != nil
	switch {
	case started && !gone && (pod.Status.Reason == "DeadlineExceeded" || pod.Status.Reason == "Evicted"):
		return nil, time.Time{} // the kubelet says so first, and then ends the container, which may still have something to say
	case pod.Status.Phase == corev1.PodFailed:
		out.NeverStarted = !started
		return out, time.Time{}
	case gone && (pod.Spec.NodeName == "" || (main == nil || main.State.Waiting != nil) && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds > 0):
		// Deleted before it started: by its last state it can't have run.
		out.NeverStarted, out.ByCluster = true, true
		if out.Diagnosis == nil || out.Diagnosis.Cause != berth.CauseDeletedExternally {
			out.Diagnosis = nil
		}
		return out, time.Time{}
	}
	return nil, time.Time{}
}
