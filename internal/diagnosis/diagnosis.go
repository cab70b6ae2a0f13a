// Package diagnosis says why a pod failed or does not start, and what an error
// of the Kubernetes API means: cause, one sentence, evidence, remedy.
//
// It is one table. A cause is a row (see row): a matcher over what the cluster
// said, a rank, texts, how long to wait, and fixtures in testdata. The rows are
// in files named for what they are about: scheduling.go, image.go, container.go,
// preparation.go, ending.go, quota.go, admission.go, access.go, connection.go,
// engine.go, and for a Docker Engine dockerrows.go. A new cause is a new row and a fixture.
//
// Pods, events and errors come in; findings come out. It asks no cluster
// anything, keeps no state and decides nothing: what is done about a finding is
// the engine's. All text of a cluster passes through clean.
package diagnosis

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

// Finding is a diagnosis and what the engine may do about it.
type Finding struct {
	berth.Diagnosis
	Patience       berth.Patience // how long a stalled attempt may stay as it is
	Infrastructure bool           // the cluster's doing, not the task's: the infrastructure's retry budget applies
	Began          bool           // the program may have run, though the cluster says that it was never started
	Retry          Retry          // what to do after an API error; RetryNone for pods
	Hopeless       bool           // of a refusal: the same request will not be accepted, however long it waits
	ExitCode       *int           // where the container's own status misleads; nil otherwise
	Void           bool           // the program ran without what it was to be given: that it ended well says nothing
}

// Subject is what the texts name: what was asked for. Empty fields are taken
// from the pod where there is one.
type Subject struct {
	Infrastructure string // name in infra.yml
	Namespace      string
	Server         string // address of the API server
	Task           string
	Pod            string
	Image          string
	CPU            berth.Quantity
	Memory         berth.Quantity
	Command        []string // what was to be run; may be empty
	ServiceAccount string
	Quiet          bool   // by our own clock, nothing has happened to the pod for some seconds
	Proxy          string // what the sidecar of the proxy said last; empty where nobody asked it
	Profile        string // of create-kubeconfig; a refused verb of no known profile is said to be in this one
}

// Retry is what the caller should do after an API error.
type Retry int

const (
	RetryNone         Retry = iota // permanent: the request will never be accepted
	RetryExists                    // an object of that name exists
	RetryNotFound                  // there is no such object
	RetryQuota                     // no room in a quota: stays queued, wakes when the quota changes
	RetryTransient                 // it was not done; try again soon
	RetryUnreachable               // no answer from the API server: the infrastructure is unreachable
	RetryUnknown                   // the request may or may not have been done
	RetryUnauthorized              // the credentials are not accepted
	RetryForbidden                 // the role lacks a verb
)

// Pod says why a pod failed or does not progress; nil when nothing is wrong:
// it is coming up as it should, it runs, or it succeeded. The status of the
// container named main decides, not the pod's phase. The events are those of
// this pod that could be seen, in any order; eventsSeen is false where the
// cluster doesn't let us read events, and then the evidence says so.
func Pod(pod *corev1.Pod, main string, events []corev1.Event, eventsSeen bool, subject Subject, now time.Time) *Finding {
	if pod == nil {
		return nil
	}
	f := newPodFacts(pod, main, events, eventsSeen, subject)
	if f.fine() {
		return nil
	}
	var found []match
	for i := range table {
		if r := &table[i]; r.onPod != nil {
			if h := r.onPod(f); h != nil {
				found = append(found, match{r, h})
			}
		}
	}
	finding := best(found, f.words(), now)
	if finding == nil {
		return nil
	}
	finding.Void = f.unmounted()
	if f.ended() {
		finding.Patience = berth.PatienceNone
		finding.addEvidence(ProxyEvidence(pod))
	}
	if f.since.Before(now) && !f.since.IsZero() {
		finding.Since = f.since
	}
	if !eventsSeen && !f.started() && !f.ended() {
		finding.Evidence = append(finding.Evidence, berth.Evidence{Source: "berth", Text: "The cluster's events about this pod could not be read, so more may be known there: " +
			"this kubeconfig may not list events in namespace " + f.words()["namespace"] + " (part of the profile tasks of berth create-kubeconfig)."})
	}
	return finding
}

// Error says what an error of an API request means. The verb and the resource
// ("create", "pods"; "get", "pods/log") are those of the request. It returns
// nil for a nil error and a finding for any other.
func Error(err error, verb, resource string, subject Subject, now time.Time) *Finding {
	if err == nil {
		return nil
	}
	f := newErrorFacts(err, verb, resource, subject)
	var found []match
	for i := range table {
		if r := &table[i]; r.onError != nil {
			if h := r.onError(f); h != nil {
				found = append(found, match{r, h})
			}
		}
	}
	return best(found, f.words(), now)
}
