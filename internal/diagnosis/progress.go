package diagnosis

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Progress is what the cluster is doing about a pod that has not started.
type Progress struct {
	Pulling bool   // the image of the main container is being fetched
	Text    string // in words, with since when; empty when there is nothing to tell
}

// ProgressOf says what the cluster is doing about a pod that it has taken up
// and not started yet. The arguments are those of Pod. It is for pods that
// nothing is wrong with: what Pod finds says more.
func ProgressOf(pod *corev1.Pod, main string, events []corev1.Event, eventsSeen bool, subject Subject) Progress {
	if pod == nil || pod.Status.Phase != corev1.PodPending || pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil {
		return Progress{}
	}
	f := newPodFacts(pod, main, events, eventsSeen, subject)
	if f.ended() || f.running() {
		return Progress{}
	}
	w := f.words()
	if e, ok := f.newest("Pulling", "Pulled", "Created", "Started", "Failed", "BackOff"); ok && e.reason == "Pulling" {
		return Progress{Pulling: true, Text: fmt.Sprintf("%s is fetching image %s%s", w["node"], w["image"], sinceText(e.at))}
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if s.State.Running != nil && s.Started != nil && !*s.Started || s.State.Running != nil && s.Started == nil {
			return Progress{Text: fmt.Sprintf("container %s prepares the task on %s%s", word(s.Name), w["node"], sinceText(s.State.Running.StartedAt.Time))}
		}
	}
	if !subject.Quiet || f.main == nil {
		return Progress{}
	}
	text := fmt.Sprintf("%s is preparing the container (volumes, network, image)%s", w["node"], sinceText(f.since))
	if !eventsSeen {
		text += "; more would be in the cluster's events, which this kubeconfig may not list"
	}
	return Progress{Text: text}
}

// sinceText says since when, in UTC.
func sinceText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + t.UTC().Format("15:04:05Z")
}
