//go:build e2e

package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/berth-run/berth"
)

// patienceOfPeople is how long a task may show neither what is being done about it
// nor why nothing is.
const patienceOfPeople = 5 * time.Second

// Whatever keeps quiet, a task says within 5 s what it waits for: to whoever
// runs it, and to whoever asks.
func TestNoTaskWaitsInSilence(t *testing.T) {
	s := newSite(t)
	node := newSimulatedNode(t, s.namespace)
	silent := registry(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s.infra("limits: {max_pods: 4}\n")
	s.alterPods(map[string]string{
		"scheduler": `[{"op": "add", "path": "/spec/schedulerName", "value": "volcano"}]`,
		"node":      `[{"op": "add", "path": "/spec/nodeName", "value": "` + node.name + `"}]`,
	})
	s.refusePods("answer", "late", admission(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.DryRun != nil && *r.DryRun {
			return &admissionv1.AdmissionResponse{}
		}
		time.Sleep(8 * time.Second) // the webhook's own slowness is what is tested
		return &admissionv1.AdmissionResponse{Allowed: true}
	}), "slow")

	cases := []struct {
		name  string
		args  []string
		words string
		cause berth.Cause // empty: what is being done is told, and nothing is wrong
	}{
		{"registry", []string{silent + "/tool:1", "true"}, "is fetching image " + silent + "/tool:1 since ", ""},
		{"scheduler", []string{"--label", alterLabel + "=scheduler", busybox, "true"}, "No scheduler has looked at pod", berth.CauseUnknown},
		{"node", []string{"--label", alterLabel + "=node", busybox, "true"}, "Node " + node.name + " was given pod", berth.CauseUnknown},
		{"slow", append(append([]string{}, noPreflight...), "--label", "answer=late", busybox, "true"), "has been asked to create pod", ""},
		{"queued", []string{busybox, "true"}, "4 of at most 4 tasks run on here (limits: max_pods), 1 queued", ""},
	}
	runs := make([]*running, len(cases))
	for i, c := range cases {
		if c.name == "queued" {
			waitFor(t, "the others are let through", 30*time.Second, func() bool {
				launching := 0
				for _, task := range s.tasks() {
					if task.State == berth.StateLaunching {
						launching++
					}
				}
				return launching == i
			})
		}
		runs[i] = s.start(append([]string{"run", "--name", c.name}, c.args...)...)
	}
	t.Cleanup(func() {
		for i, c := range cases {
			if t.Failed() {
				t.Logf("%s:\n%s", c.name, runs[i].stderr.String())
			}
		}
	})
	shown := make([]time.Time, len(cases))
	waitFor(t, "each says what it waits for", 30*time.Second, func() bool {
		all := true
		for i, c := range cases {
			if shown[i].IsZero() && strings.Contains(runs[i].stderr.String(), c.words) {
				shown[i] = time.Now()
			}
			all = all && !shown[i].IsZero()
		}
		return all
	})
	list := s.must("task", "list")
	for i, c := range cases {
		id := s.byName(c.name)
		task := s.task(id)
		if waited := shown[i].Sub(task.CreatedAt); waited > patienceOfPeople {
			t.Errorf("%s: it was silent for %s:\n%s", c.name, waited, runs[i].stderr.String())
		}
		if page := s.must("task", "explain", id); !strings.Contains(strings.Join(strings.Fields(page), " "), c.words) || !strings.Contains(list, c.words) {
			t.Errorf("%s: %q is not told:\n%s\n%s", c.name, c.words, page, list)
		}
		switch {
		case c.cause != "":
			check(t, s.explained(id), c.cause)
		case task.Diagnosis != nil || task.Reason == nil || !strings.Contains(*task.Reason, c.words):
			t.Errorf("%s: %+v", c.name, task)
		}
	}
	node.forceDelete()
}
