package diagnosis

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

// podFacts is what the matchers of pods look at.
type podFacts struct {
	pod        *corev1.Pod
	subject    Subject
	main       *corev1.ContainerStatus // nil before the kubelet saw the pod
	spec       *corev1.Container       // of the main container; nil when there is none of that name
	events     []event                 // newest first, each text once
	scheduling *schedulerMessage       // of the condition PodScheduled=False; nil otherwise
	pull       *pull                   // the pull that fails; nil when none does
	since      time.Time               // when the state began, as far as the cluster tells
}

// event is a corev1.Event with the many ways to tell its time in one.
type event struct {
	reason, message string
	at              time.Time // last seen
}

func (e event) evidence() berth.Evidence {
	return berth.Evidence{Source: "event " + word(e.reason), Text: e.message}
}

func newPodFacts(pod *corev1.Pod, main string, events []corev1.Event, eventsSeen bool, subject Subject) *podFacts {
	f := &podFacts{pod: pod, subject: subject}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == main {
			f.spec = &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == main {
			f.main = &pod.Status.ContainerStatuses[i]
		}
	}
	if eventsSeen {
		f.events = tidy(events, pod)
	}
	f.pull = f.pulling()
	f.since = pod.CreationTimestamp.Time
	if c := f.condition(corev1.PodScheduled); c != nil {
		if !c.LastTransitionTime.IsZero() {
			f.since = c.LastTransitionTime.Time
		}
		if c.Status == corev1.ConditionFalse {
			f.scheduling = parseScheduler(c.Message)
		}
	}
	if t := f.terminated(); t != nil && !t.FinishedAt.IsZero() {
		f.since = t.FinishedAt.Time
	}
	return f
}

// tidy brings events into one order, whatever order and number they came in.
func tidy(events []corev1.Event, pod *corev1.Pod) []event {
	var out []event
	for i := range events {
		e := &events[i]
		if e.InvolvedObject.UID != "" && pod.UID != "" && e.InvolvedObject.UID != pod.UID {
			continue // of an earlier pod of that name
		}
		at := e.LastTimestamp.Time
		if e.Series != nil && e.Series.LastObservedTime.After(at) {
			at = e.Series.LastObservedTime.Time
		}
		for _, other := range []time.Time{e.EventTime.Time, e.FirstTimestamp.Time, e.CreationTimestamp.Time} {
			if at.IsZero() {
				at = other
			}
		}
		out = append(out, event{e.Reason, plain(e.Message), at})
	}
	slices.SortFunc(out, func(a, b event) int {
		return cmp.Or(b.at.Compare(a.at), strings.Compare(a.reason, b.reason), strings.Compare(a.message, b.message))
	})
	return slices.CompactFunc(out, func(a, b event) bool { return a.reason == b.reason && a.message == b.message })
}

// newest returns the newest event with one of the reasons.
func (f *podFacts) newest(reasons ...string) (event, bool) {
	i := slices.IndexFunc(f.events, func(e event) bool { return slices.Contains(reasons, e.reason) })
	if i < 0 {
		return event{}, false
	}
	return f.events[i], true
}

func (f *podFacts) condition(kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range f.pod.Status.Conditions {
		if f.pod.Status.Conditions[i].Type == kind {
			return &f.pod.Status.Conditions[i]
		}
	}
	return nil
}

// terminated returns how the main container ended, nil while it has not.
func (f *podFacts) terminated() *corev1.ContainerStateTerminated {
	if f.main == nil {
		return nil
	}
	return f.main.State.Terminated
}

func (f *podFacts) running() bool { return f.main != nil && f.main.State.Running != nil }
func (f *podFacts) failed() bool  { return f.pod.Status.Phase == corev1.PodFailed }
func (f *podFacts) ended() bool   { return f.failed() || f.terminated() != nil }

// started reports whether the main container runs or ran.
func (f *podFacts) started() bool {
	t := f.terminated()
	return f.running() || t != nil && t.StartedAt.Unix() > 0
}

// startedAt returns when the main container started, as far as is known.
func (f *podFacts) startedAt() time.Time {
	if f.running() {
		return f.main.State.Running.StartedAt.Time
	}
	if t := f.terminated(); t != nil {
		return t.StartedAt.Time
	}
	return time.Time{}
}

// endedBefore reports whether the main container had ended before something
// happened to the pod, which then is not why it ended.
func (f *podFacts) endedBefore(t time.Time) bool {
	ended := f.terminated()
	return ended != nil && !ended.FinishedAt.IsZero() && !t.IsZero() && ended.FinishedAt.Time.Before(t)
}

// disrupted returns the condition DisruptionTarget with one of the reasons, if
// it is what ended or is ending the main container.
func (f *podFacts) disrupted(reasons ...string) *corev1.PodCondition {
	c := f.condition(corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || !slices.Contains(reasons, c.Reason) || f.endedBefore(c.LastTransitionTime.Time) {
		return nil
	}
	return c
}

// reason reports whether the pod's own status has one of the reasons and the
// main container had not ended before.
func (f *podFacts) reason(reasons ...string) bool {
	if !slices.Contains(reasons, f.pod.Status.Reason) {
		return false
	}
	c := f.condition(corev1.DisruptionTarget)
	return c == nil || !f.endedBefore(c.LastTransitionTime.Time)
}

// fine reports whether there is nothing to explain.
func (f *podFacts) fine() bool {
	if t := f.terminated(); t != nil {
		return t.ExitCode == 0 && !f.overDeadline() && !f.unmounted()
	}
	if f.pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	// A node that is lost takes its running containers with it.
	return f.running() && !f.failed() && f.disrupted(nodeLossReasons...) == nil && !f.dfsTroubled() && !f.cutOff()
}

// stuck is a container that waits for something that may never come.
type stuck struct {
	name, image, reason, message string
}

func (s stuck) evidence() berth.Evidence {
	return berth.Evidence{Source: "container status waiting " + word(s.reason), Text: cmp.Or(s.message, s.reason)}
}

// waiting returns the container that waits with one of the reasons, the main
// one before the others.
func (f *podFacts) waiting(reasons ...string) (stuck, bool) {
	if f.ended() || f.running() {
		return stuck{}, false
	}
	statuses := slices.Concat(f.pod.Status.InitContainerStatuses, f.pod.Status.ContainerStatuses)
	if f.main != nil {
		statuses = slices.Insert(statuses, 0, *f.main)
	}
	for _, s := range statuses {
		if w := s.State.Waiting; w != nil && slices.Contains(reasons, w.Reason) {
			return stuck{s.Name, f.imageOf(s), w.Reason, plain(w.Message)}, true
		}
	}
	return stuck{}, false
}

// imageOf returns the image as it was asked for.
func (f *podFacts) imageOf(s corev1.ContainerStatus) string {
	for _, c := range slices.Concat(f.pod.Spec.Containers, f.pod.Spec.InitContainers) {
		if c.Name == s.Name && c.Image != "" {
			return c.Image
		}
	}
	return s.Image
}

// words are the placeholders that every text about a pod may use.
func (f *podFacts) words() map[string]string {
	s := f.subject
	s.Pod = cmp.Or(s.Pod, f.pod.Name)
	s.Namespace = cmp.Or(s.Namespace, f.pod.Namespace)
	s.ServiceAccount = cmp.Or(s.ServiceAccount, f.pod.Spec.ServiceAccountName)
	if f.spec != nil {
		s.Image = cmp.Or(s.Image, f.spec.Image)
		if len(s.Command) == 0 {
			s.Command = slices.Concat(f.spec.Command, f.spec.Args)
		}
		s.CPU = cmp.Or(s.CPU, asked(f.spec, corev1.ResourceCPU))
		s.Memory = cmp.Or(s.Memory, asked(f.spec, corev1.ResourceMemory))
	}
	w := s.words()
	w["node"], w["the_node"] = "the node", "The node"
	if name := word(f.pod.Spec.NodeName); name != "" {
		w["node"], w["the_node"] = "node "+name, "Node "+name
	}
	w["task"] = cmp.Or(word(f.pod.Labels[berth.LabelTask]), "ID")
	return w
}

func asked(c *corev1.Container, name corev1.ResourceName) berth.Quantity {
	if q, ok := c.Resources.Requests[name]; ok {
		return berth.Quantity(q.String())
	}
	if q, ok := c.Resources.Limits[name]; ok {
		return berth.Quantity(q.String())
	}
	return ""
}

// words are the placeholders that every text may use.
func (s Subject) words() map[string]string {
	command := "the command"
	if len(s.Command) > 0 {
		command = `"` + strings.Join(s.Command, " ") + `"`
	}
	w := map[string]string{
		"infrastructure": cmp.Or(s.Infrastructure, "the cluster"), "namespace": cmp.Or(s.Namespace, "the namespace"),
		"server": cmp.Or(s.Server, "the cluster's address"), "pod": cmp.Or(s.Pod, "the pod"), "image": cmp.Or(s.Image, "the image"),
		"cpu": cmp.Or(string(s.CPU), "the asked"), "memory": cmp.Or(string(s.Memory), "the asked amount"), "command": command,
		"task": cmp.Or(s.Task, "ID"), "cpu_now": now(string(s.CPU)), "memory_now": now(string(s.Memory)), "service_account": cmp.Or(s.ServiceAccount, "default"),
	}
	for k, v := range w {
		w[k] = word(v)
	}
	return w
}
