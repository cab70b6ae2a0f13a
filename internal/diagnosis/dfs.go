package diagnosis

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

// DFSContainer is the name of the sidecar that mounts the shared filesystem.
const DFSContainer = "berth-dfs"

// What the JuiceFS client (1.2 to 1.4) and the kernel say when a mount fails.
var (
	dfsUnformatted = regexp.MustCompile(`database is not formatted`)
	dfsPassword    = regexp.MustCompile(`WRONGPASS|NOAUTH|NOPERM|invalid password|AUTH .*called without any password`)
	dfsNoFUSE      = regexp.MustCompile(`/dev/fuse|fusermount|modprobe fuse|fuse: device not found`)
	dfsStorage     = regexp.MustCompile(`[Tt]est storage|object storage|[Bb]ucket|Storage .* is not (accessible|available)`)
	dfsUnreachable = regexp.MustCompile(`connection refused|no such host|i/o timeout|no answer within|no route to host|network is unreachable|connection reset|server misbehaving|LOADING|EOF$`)
	dfsForbidden   = regexp.MustCompile(`violates PodSecurity "([^":]+)[^"]*": (.*"` + DFSContainer + `".*)`)
	diskFull       = regexp.MustCompile(`(?i)no space left on device|disk quota exceeded`)
)

// dfs returns the sidecar that mounts the shared filesystem: as it was asked
// for and as it stands; nil for a pod without.
func (f *podFacts) dfs() (*corev1.Container, *corev1.ContainerStatus) {
	s := InitStatus(f.pod, DFSContainer)
	i := slices.IndexFunc(f.pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == DFSContainer })
	if s == nil || i < 0 {
		return nil, nil
	}
	return &f.pod.Spec.InitContainers[i], s
}

// dfsAddress is where the metadata of the filesystem is.
func dfsAddress(c *corev1.Container) string {
	for _, word := range c.Command {
		if strings.HasPrefix(word, "redis://") || strings.HasPrefix(word, "rediss://") {
			return word
		}
	}
	return "its metadata server"
}

// dfsPath is where the main container has the filesystem.
func (f *podFacts) dfsPath(c *corev1.Container) string {
	if f.spec != nil && len(c.VolumeMounts) > 0 {
		for _, m := range f.spec.VolumeMounts {
			if m.Name == c.VolumeMounts[0].Name {
				return m.MountPath
			}
		}
	}
	return "the mount"
}

// dfsEnd returns how the sidecar ended last, and what its status calls that; nil when it never did.
func dfsEnd(s *corev1.ContainerStatus) (*corev1.ContainerStateTerminated, string) {
	how := "last terminated"
	if s.State.Terminated != nil {
		how = "terminated"
	}
	return lastEnd(s), how
}

func dfsEvidence(t *corev1.ContainerStateTerminated, how string) berth.Evidence {
	text := fmt.Sprintf("exit code %d", t.ExitCode)
	if t.Message != "" {
		text += ": " + t.Message
	}
	return berth.Evidence{Source: "container status " + how + " of sidecar " + DFSContainer, Text: text}
}

// mounting makes the matcher of a sidecar that can't mount, and says something
// of a kind about that.
func mounting(pattern *regexp.Regexp) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		c, s := f.dfs()
		if s == nil || f.started() && !f.unmounted() || !f.started() && s.Started != nil && *s.Started {
			return nil
		}
		t, how := dfsEnd(s)
		if t == nil || t.ExitCode == 0 || pattern != nil && !pattern.MatchString(t.Message) {
			return nil
		}
		return saw(dfsEvidence(t, how), "where", dfsAddress(c), "path", f.dfsPath(c), "said", cmp.Or(lastLine(t.Message), fmt.Sprintf("exit code %d", t.ExitCode)))
	}
}

// unmounted reports whether the program was started though the sidecar had ended
// without a mount. A kubelet starts what comes next by what its runtime says, and
// that may still be that the sidecar runs. Times are in whole seconds: where they
// don't tell, the event of what waits for the mount does.
func (f *podFacts) unmounted() bool {
	_, s := f.dfs()
	if s == nil || !f.started() {
		return false
	}
	at := f.startedAt()
	if r := s.State.Running; r != nil && !r.StartedAt.After(at) {
		return false
	}
	failed := false
	for _, t := range []*corev1.ContainerStateTerminated{s.State.Terminated, s.LastTerminationState.Terminated} {
		switch {
		case t == nil:
		case t.FinishedAt.Time.Before(at):
			failed = failed || t.ExitCode != 0
		case !t.StartedAt.After(at):
			if _, hook := f.newest("FailedPostStartHook"); !hook || s.RestartCount > 0 || t.ExitCode == 0 || !t.FinishedAt.Time.Equal(at) {
				return false // it ran then, and ended later
			}
			failed = true
		}
	}
	return failed
}

// lastLine is the last that a program said.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(plain(text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// dfsGone finds a mount that ended under a program that ran: the one that a
// sidecar makes anew is not the one that the program has.
func dfsGone(f *podFacts) *hit {
	c, s := f.dfs()
	if s == nil || !f.started() || f.unmounted() || f.pod.DeletionTimestamp != nil {
		return nil
	}
	t, how := dfsEnd(s)
	if t == nil || t.FinishedAt.IsZero() || f.startedAt().After(t.FinishedAt.Time) {
		return nil
	}
	if ended := f.terminated(); ended != nil && !t.FinishedAt.Time.Before(ended.FinishedAt.Time) {
		return nil // as sidecars do, after the program
	}
	return f.withEnding(saw(dfsEvidence(t, how), "path", f.dfsPath(c)))
}

// dfsSilent finds a mount that no longer answers a program that runs: the
// sidecar was ready, and is not; or it never was, as it has not answered the
// first time that it was asked, which may be after the program's start.
func dfsSilent(f *podFacts) *hit {
	c, s := f.dfs()
	if s == nil || !f.running() || s.Ready || s.State.Running == nil || f.pod.DeletionTimestamp != nil {
		return nil
	}
	ready := f.condition(corev1.PodReady)
	if ready == nil || ready.Status == corev1.ConditionTrue {
		return nil
	}
	since := ready.LastTransitionTime.Time
	if !since.After(f.startedAt()) {
		if since = f.dfsUnanswered(); !since.After(f.startedAt()) {
			return nil
		}
	}
	e := berth.Evidence{Source: "container status running of sidecar " + DFSContainer, Text: "not ready since " + since.UTC().Format(time.RFC3339) + ": a name that is in no cache was asked for there, without an answer"}
	return f.withEvents(saw(e, "path", f.dfsPath(c), "where", dfsAddress(c)))
}

// DFSSilence is what the probe of the sidecar says where the mount doesn't answer.
const DFSSilence = "the shared filesystem does not answer"

// dfsUnanswered is when a probe of the mount failed last, by the events; zero: none did.
func (f *podFacts) dfsUnanswered() time.Time {
	for _, e := range f.events {
		if e.reason == "Unhealthy" && strings.Contains(e.message, DFSSilence) {
			return e.at
		}
	}
	return time.Time{}
}

// DFSAnswered reports whether nothing is waited for of the sidecar that mounts
// the shared filesystem: there is none, or it is ready.
func DFSAnswered(pod *corev1.Pod) bool {
	s := InitStatus(pod, DFSContainer)
	return s == nil || s.Ready || s.State.Running == nil
}

// dfsTroubled reports whether the shared filesystem of a program that runs is
// in trouble.
func (f *podFacts) dfsTroubled() bool {
	return f.unmounted() || dfsGone(f) != nil || dfsSilent(f) != nil
}

var dfsRows = []row{
	{
		cause: berth.CauseMountFailed, rank: 240, onPod: mounting(dfsUnformatted), patience: berth.PatienceConfig,
		means:   "There is no JuiceFS volume at the address of mount_dfs: nobody has formatted one there.",
		summary: "There is no JuiceFS volume at {where}: it was never formatted.",
		remedy:  "make the volume, once: berth infra dfs init {infrastructure}; or correct mount_dfs of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseMountFailed, rank: 241, onPod: mounting(dfsPassword), patience: berth.PatienceConfig,
		means:   "The Redis of mount_dfs does not accept the password, or wants one.",
		summary: "The Redis at {where} does not accept the login of mount_dfs.",
		remedy:  "correct the user and the password in mount_dfs of infrastructure {infrastructure} in infra.yml, such as redis://:${secret:redis}@HOST:PORT/1",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseMountFailed, rank: 242, onPod: mounting(dfsNoFUSE), patience: berth.PatienceConfig, infrastructure: true,
		means:   "The node has no FUSE, by which JuiceFS is mounted.",
		summary: "{the_node} has no FUSE (/dev/fuse), by which mount_dfs mounts JuiceFS.",
		remedy:  "have the kernel module fuse loaded on the nodes, choose other nodes with pod: node_selector, or share a claim instead with mount_dfs: pvc:NAME",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseMountFailed, rank: 243, onPod: mounting(dfsStorage), patience: berth.PatienceConfig, infrastructure: true,
		means:   "The storage that JuiceFS keeps its blocks in does not answer, or refuses the volume's key.",
		summary: "The storage that the volume at {where} keeps its blocks in can't be used from {node} ({said}).",
		remedy:  "see whether that storage runs, and takes the key that the volume was formatted with (juicefs config shows and changes it)",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseMountFailed, rank: 244, onPod: mounting(dfsUnreachable), patience: berth.PatienceConfig, infrastructure: true,
		means:   "The Redis of mount_dfs can't be reached from the node: it is down, or a network lies between.",
		summary: "The Redis at {where} can't be reached from {node}, so {path} can't be mounted.",
		remedy:  "see whether that Redis runs, and listens where pods reach it: a loopback address won't do, and a NetworkPolicy of the namespace must allow it",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseMountFailed, rank: 245, onPod: mounting(nil), patience: berth.PatienceConfig, infrastructure: true,
		means:   "The sidecar that mounts the shared filesystem failed, for a reason that is not in this table.",
		summary: "The shared filesystem at {where} can't be mounted on {node} ({said}).",
		remedy:  "read the evidence, which is what the JuiceFS client said: kubectl -n {namespace} logs {pod} -c " + DFSContainer,
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CausePodSecurityViolated, rank: 619, onError: says(dfsForbidden, []int{http.StatusForbidden}, "level", "violations"), patience: berth.PatienceNone,
		means:   "The namespace's security level forbids the sidecar that mounts the shared filesystem: it is privileged.",
		summary: "Namespace {namespace} has security level {level}, which forbids the privileged sidecar that mount_dfs mounts JuiceFS by: {violations}.",
		remedy:  "have the namespace's Pod Security set to privileged, or share a claim instead, with no privilege: mount_dfs: pvc:NAME of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseMountFailed, rank: 246, onPod: dfsGone, patience: berth.PatienceForever,
		means:   "The sidecar that mounts the shared filesystem ended while the program ran: what it does there fails since then.",
		summary: "The mount of {path} ended while the program ran; whatever the program did there since has failed.",
		remedy:  "submit it again; if it was the memory (1 GiB for the mount), fewer files at a time help",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseMountFailed, rank: 247, onPod: dfsSilent, patience: berth.PatienceForever,
		means:   "The shared filesystem does not answer while the program runs: its Redis or its storage is away. What waits for it goes on when it is back, or fails after a while.",
		summary: "The shared filesystem at {path} does not answer: its Redis, {where}, or its storage is away.",
		remedy:  "see whether that Redis and the storage behind it run; the task goes on by itself when they are back, or its program gets an input/output error",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseExitedNonZero, rank: 278,
		onPod: func(f *podFacts) *hit {
			t := f.terminated()
			c, _ := f.dfs()
			if t == nil || t.ExitCode == 0 || c == nil || !diskFull.MatchString(t.Message) || f.neverRan() {
				return nil
			}
			return saw(f.ending(), "code", fmt.Sprint(t.ExitCode), "path", f.dfsPath(c))
		},
		means:   "The program itself ended with an exit code that isn't 0, and said that a disk is full, where it has a shared filesystem.",
		summary: "The program ended by itself with exit code {code}, and wrote that a disk is full: the shared filesystem at {path}, or the container's own.",
		remedy:  "make room: berth data ls -l and berth data rm show and remove what is there; the volume's capacity is set with juicefs config",
		by:      berth.RemedyByUser,
	},
}
