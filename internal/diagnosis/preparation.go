package diagnosis

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

var (
	missingObject  = regexp.MustCompile(`(?i)(secret|configmap) "([^"]+)" not found`)
	unsynced       = regexp.MustCompile(`(?i)failed to sync (secret|configmap) cache`)
	missingKey     = regexp.MustCompile(`(?i)couldn't find key (\S+) in (Secret|ConfigMap) (\S+)`)
	missingPVC     = regexp.MustCompile(`(?i)persistentvolumeclaim "([^"]+)" not found`)
	volumeName     = regexp.MustCompile(`(?:for volume|unmounted volumes=\[?|Volume) ?"?([A-Za-z0-9.\-_]+)`)
	runtimeMissing = regexp.MustCompile(`(?i)no runtime for "([^"]+)" is configured|RuntimeHandler "?([^"\s]+)"? not supported|failed to lookup runtimeHandler|failed to find runtime handler ([^\s,]+)|RuntimeClass "([^"]+)" not found`)

	// What a kubelet says once volumes and sandbox are there.
	progress = []string{"Pulling", "Pulled", "Created", "Started"}
)

// preparing makes the matcher of an event that tells why a pod is not ready
// for its containers, unless the kubelet has come further since.
func preparing(pattern *regexp.Regexp, reasons ...string) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		if f.ended() || f.running() {
			return nil
		}
		e, ok := f.newest(reasons...)
		if !ok || pattern != nil && !pattern.MatchString(e.message) {
			return nil
		}
		if done, ok := f.newest(progress...); ok && !done.at.Before(e.at) {
			return nil
		}
		h := saw(e.evidence(), "object", objectIn(e.message), "name", firstGroup(runtimeMissing, e.message))
		return h
	}
}

// objectIn names the object that a text of the kubelet is about.
func objectIn(text string) string {
	if m := missingKey.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("key %s of %s %s", m[1], m[2], m[3])
	}
	if m := missingObject.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s %q", m[1], m[2])
	}
	if m := missingPVC.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("PersistentVolumeClaim %q", m[1])
	}
	if m := volumeName.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("volume %q", m[1])
	}
	return "a volume"
}

// firstGroup returns what the first group that took part matched, quoted.
func firstGroup(pattern *regexp.Regexp, text string) string {
	m := pattern.FindStringSubmatch(text)
	for i := 1; i < len(m); i++ {
		if m[i] != "" {
			return fmt.Sprintf("%q", m[i])
		}
	}
	return "that was asked for"
}

// initFailed finds an init container that failed, or a sidecar that keeps failing.
func initFailed(f *podFacts) *hit {
	if f.started() {
		return nil
	}
	for _, s := range f.pod.Status.InitContainerStatuses {
		t, how := s.State.Terminated, "terminated"
		if w := s.State.Waiting; t == nil && w != nil && w.Reason == "CrashLoopBackOff" {
			t, how = cmp.Or(s.LastTerminationState.Terminated, &corev1.ContainerStateTerminated{}), "last terminated"
		}
		if t == nil || t.ExitCode == 0 && how == "terminated" {
			continue
		}
		text := fmt.Sprintf("%s, exit code %d", t.Reason, t.ExitCode)
		if t.Message != "" {
			text += ": " + t.Message
		}
		e := berth.Evidence{Source: "container status " + how + " of init container " + word(s.Name), Text: text}
		return saw(e, "container", s.Name, "end", fmt.Sprintf("exit code %d, %s", t.ExitCode, cmp.Or(t.Reason, "no reason given")))
	}
	return nil
}

// untaken matches a pod that its node has not looked at.
func untaken(f *podFacts) *hit {
	if !f.subject.Quiet || f.pod.Spec.NodeName == "" || f.pod.Status.StartTime != nil || f.main != nil || f.ended() || f.pod.DeletionTimestamp != nil {
		return nil
	}
	return f.withEvents(saw(berth.Evidence{Source: "pod status", Text: f.status()}))
}

// missing reports whether a text says that a Secret, a ConfigMap or a key of one isn't there.
func missing(text string) bool {
	return missingObject.MatchString(text) || missingKey.MatchString(text)
}

var preparationRows = []row{
	{
		cause: berth.CauseConfigNotFound, rank: 400, patience: berth.PatienceConfig,
		onPod: func(f *podFacts) *hit {
			s, ok := f.waiting("CreateContainerConfigError", "CreateContainerError")
			switch {
			case !ok:
				return nil
			case missing(s.message):
				return saw(s.evidence(), "object", objectIn(s.message))
			case !unsynced.MatchString(s.message):
				return nil
			}
			// The node could not look once more; what it found before stands.
			i := slices.IndexFunc(f.events, func(e event) bool { return e.reason == "Failed" && missing(e.message) })
			if i < 0 {
				return nil
			}
			return f.withEvents(saw(f.events[i].evidence(), "object", objectIn(f.events[i].message)))
		},
		means:   "The container takes values from a Secret or ConfigMap that isn't there.",
		summary: "The container needs {object}, which namespace {namespace} does not have.",
		remedy:  "create {object} in namespace {namespace}, or correct the name",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseRuntimeClassNotFound, rank: 405, patience: berth.PatienceConfig, onPod: preparing(runtimeMissing, "FailedCreatePodSandBox"),
		means:   "The node does not have the container runtime that pod: runtime_class asks for.",
		summary: "{the_node} does not have the container runtime {name} that the runtime class asks for.",
		remedy:  "correct pod: runtime_class of infrastructure {infrastructure} in infra.yml, or have that runtime installed on the nodes",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseMountFailed, rank: 410, patience: berth.PatienceConfig, infrastructure: true, onPod: preparing(nil, "FailedMount", "FailedAttachVolume", "FailedMapVolume"),
		means:   "A volume of the pod can't be mounted on its node: what it is made from is missing, or the storage doesn't answer.",
		summary: "{the_node} cannot mount {object}.",
		remedy:  "check that {object} exists in namespace {namespace}; if it does, the storage behind it has to be mended",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseSandboxFailed, rank: 420, patience: berth.PatienceConfig, infrastructure: true, onPod: preparing(nil, "FailedCreatePodSandBox", "FailedCreatePodContainer", "FailedPodSandBoxStatus"),
		means:   "The node can't set up the pod's network or its outer shell (sandbox), before any container.",
		summary: "{the_node} cannot set up the pod's network and surroundings (its sandbox).",
		remedy:  "show the evidence to the cluster's engineer: the node's network plugin or container runtime is in trouble",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseInitFailed, rank: 250, patience: berth.PatienceConfig, onPod: initFailed,
		means:   "A container that prepares the pod failed, so the main one never started.",
		summary: "Container {container}, which prepares the task, failed ({end}), so the task's own program never started.",
		remedy:  "read that container's output: kubectl -n {namespace} logs {pod} -c {container}",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 450, onPod: untaken,
		means:   "The node that was chosen has not taken the pod up for some seconds: its kubelet says nothing.",
		summary: "{the_node} was given pod {pod} and says nothing about it.",
		remedy:  "wait if the node is busy; otherwise have it checked whether its kubelet runs and reaches the cluster",
		by:      berth.RemedyByEngineer,
	},
	{
		// A node may read the Secrets of its own pods, and the API server may learn
		// a moment after the node that this one is. The node tries again after 10 s.
		cause: berth.CauseUnknown, rank: 425, patience: berth.PatienceStart,
		onPod: func(f *podFacts) *hit {
			s, ok := f.waiting("CreateContainerConfigError", "CreateContainerError")
			if !ok || !unsynced.MatchString(s.message) {
				return nil
			}
			return saw(s.evidence())
		},
		means:   "The node could not look up the Secrets or ConfigMaps of a container in time. It tries again after some ten seconds.",
		summary: "{the_node} could not look up a Secret or ConfigMap of pod {pod} in time, and tries again.",
		remedy:  "wait a moment; if it stays, have it checked what the node's kubelet says of it",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 430, patience: berth.PatienceConfig,
		onPod: func(f *podFacts) *hit {
			s, ok := f.waiting("CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError", "CrashLoopBackOff")
			if !ok {
				return nil
			}
			return saw(s.evidence(), "reason", s.reason)
		},
		means:   "The container can't be configured, for a reason that is not in this table.",
		summary: "{the_node} cannot set up the container of image {image} ({reason}).",
		remedy:  "read the evidence, which has the node's own words, or show it to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
}
