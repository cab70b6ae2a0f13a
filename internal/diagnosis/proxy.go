package diagnosis

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// The containers that send what a pod sends through a proxy: one that makes the
// rules and ends, and the sidecar.
const (
	ProxyRulesContainer = "berth-proxy-rules"
	ProxyContainer      = "berth-proxy"
)

// InitStatus returns the status of an init container or sidecar; nil before the
// kubelet tells it.
func InitStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for i := range pod.Status.InitContainerStatuses {
		if pod.Status.InitContainerStatuses[i].Name == name {
			return &pod.Status.InitContainerStatuses[i]
		}
	}
	return nil
}

// lastEnd is how a container ended last; nil where it never did.
func lastEnd(s *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if s == nil {
		return nil
	}
	return cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated)
}

// proxySays is what the sidecar says is wrong with the proxy, by its log or, for
// a pod that starts, by the event of its probe; empty where all is well with it.
func (f *podFacts) proxySays() (berth.Evidence, string) {
	s := InitStatus(f.pod, ProxyContainer)
	if s == nil || s.State.Running == nil || f.ended() || f.pod.DeletionTimestamp != nil || s.Ready {
		return berth.Evidence{}, ""
	}
	if _, text, ok := strings.Cut(f.subject.Proxy, agent.ProxyTrouble+": "); ok {
		return berth.Evidence{Source: "log of container " + ProxyContainer, Text: f.subject.Proxy}, text
	}
	for _, e := range f.events {
		if _, text, ok := strings.Cut(e.message, agent.ProxyTrouble+": "); ok && e.reason == "Unhealthy" && !f.running() {
			return e.evidence(), text
		}
	}
	return berth.Evidence{}, ""
}

const wantsLogin = "user and password"

func egressTrouble(login bool) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		e, text := f.proxySays()
		if text == "" || strings.Contains(text, wantsLogin) != login {
			return nil
		}
		return saw(e, "why", strings.TrimRight(text, ". \n"))
	}
}

// proxyNameless finds the container that makes the rules ended for want of the
// proxy's address.
func proxyNameless(f *podFacts) *hit {
	t := lastEnd(InitStatus(f.pod, ProxyRulesContainer))
	if f.started() || t == nil || t.ExitCode != agent.ProxyNameless {
		return nil
	}
	text := cmp.Or(strings.TrimPrefix(plain(t.Message), agent.ProxyTrouble+": "), "its name does not resolve")
	return saw(berth.Evidence{Source: "container status terminated of init container " + ProxyRulesContainer, Text: fmt.Sprintf("exit code %d: %s", t.ExitCode, text)}, "why", strings.TrimRight(text, ". \n"))
}

// cutOff reports whether a pod has a proxy that can't be used now.
func (f *podFacts) cutOff() bool {
	_, text := f.proxySays()
	return text != "" || proxyEnded(f) != nil
}

// proxyEnded finds a sidecar that is not there while the pod needs it.
func proxyEnded(f *podFacts) *hit {
	s := InitStatus(f.pod, ProxyContainer)
	t := lastEnd(s)
	if s == nil || s.State.Running != nil || t == nil || f.ended() || f.pod.DeletionTimestamp != nil {
		return nil
	}
	return saw(proxyEnd(t), "end", fmt.Sprintf("exit code %d, %s", t.ExitCode, cmp.Or(word(t.Reason), "no reason given")))
}

func proxyEnd(t *corev1.ContainerStateTerminated) berth.Evidence {
	text := fmt.Sprintf("%s, exit code %d", t.Reason, t.ExitCode)
	if agent.DecodeProxyReport(t.Message) == nil && t.Message != "" {
		text += ": " + t.Message
	}
	return berth.Evidence{Source: "container status terminated of sidecar " + ProxyContainer, Text: text}
}

// ProxyEvidence is what was wrong with a pod's proxy when it ended, or before;
// nothing where it could be used all the time.
func ProxyEvidence(pod *corev1.Pod) []berth.Evidence {
	s := InitStatus(pod, ProxyContainer)
	if s == nil {
		return nil
	}
	var out []berth.Evidence
	if s.RestartCount > 0 {
		text := fmt.Sprintf("it was started %d times more, as it had ended", s.RestartCount)
		if t := s.LastTerminationState.Terminated; t != nil {
			text += fmt.Sprintf(" (last: %s, exit code %d)", cmp.Or(word(t.Reason), "no reason given"), t.ExitCode)
		}
		out = append(out, berth.Evidence{Source: "sidecar " + ProxyContainer, Text: text + "; nothing gets out meanwhile"})
	}
	t := s.State.Terminated
	if t == nil {
		return out
	}
	switch r := agent.DecodeProxyReport(t.Message); {
	case r == nil:
	case r.Trouble != "":
		out = append(out, berth.Evidence{Source: "sidecar " + ProxyContainer, Text: "at the end the proxy could not be used: " + r.Trouble})
	case r.Troubles > 0:
		out = append(out, berth.Evidence{Source: "sidecar " + ProxyContainer, Text: fmt.Sprintf("the proxy could not be used for a while, %d times", r.Troubles)})
	}
	return out
}

// proxyForbidden is a refusal of the container that makes the rules.
var proxyForbidden = regexp.MustCompile(`(?s)violates PodSecurity "([^":]+)[^"]*": (.*"` + ProxyRulesContainer + `".*)`)

// proxyRows are of pods that send everything through a proxy.
var proxyRows = []row{
	{
		cause: berth.CauseProxyUnreachable, rank: 234, onPod: proxyNameless,
		means:   "The name in proxy_address does not resolve where the task's pod is.",
		summary: "The proxy of infrastructure {infrastructure} can't be used: {why}.",
		remedy:  "correct proxy_address of infrastructure {infrastructure} in infra.yml, or write the proxy's IPv4 address there",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseProxyUnreachable, rank: 235, patience: berth.PatienceConfig, onPod: egressTrouble(true),
		means:   "The proxy wants a login that infra.yml does not give, or does not accept it.",
		summary: "The proxy of infrastructure {infrastructure} does not let tasks through: {why}.",
		remedy:  "put the login into proxy_address of infrastructure {infrastructure} in infra.yml, with the password as a reference such as ${secret:proxy}, and run it again",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseProxyUnreachable, rank: 236, patience: berth.PatienceConfig, onPod: egressTrouble(false),
		means:   "The proxy of proxy_address can't be reached from the task's pod, does not answer, or is no proxy of that kind. Nothing gets out meanwhile.",
		summary: "The proxy of infrastructure {infrastructure} can't be used, and nothing gets out without it: {why}.",
		remedy:  "check that the proxy runs, that pods in namespace {namespace} reach it, and that proxy_address in infra.yml says what it is (socks5:// or http://); tasks go on by themselves once it is back",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseProxyUnreachable, rank: 237, patience: berth.PatienceConfig, onPod: proxyEnded,
		means:   "The sidecar that sends a task's traffic to the proxy ended, and its node starts it again. Nothing gets out meanwhile.",
		summary: "The sidecar that sends the task's traffic to the proxy of infrastructure {infrastructure} ended ({end}); nothing gets out until its node has started it again.",
		remedy:  "nothing if it happens once; if it stays, read what it wrote: kubectl -n {namespace} logs {pod} -c " + ProxyContainer + " --previous",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CausePodSecurityViolated, rank: 618, onError: says(proxyForbidden, []int{http.StatusForbidden}, "level", "violations"), patience: berth.PatienceNone,
		means:   "The namespace's security level forbids the container that keeps a task's traffic from going around the proxy: it needs NET_ADMIN.",
		summary: "Namespace {namespace} has security level {level}, which forbids the capability NET_ADMIN that proxy_address takes: {violations}.",
		remedy:  "have the namespace's Pod Security set to privileged (label pod-security.kubernetes.io/enforce=privileged): one container of each pod gets NET_ADMIN for a moment, and tasks themselves stay as unprivileged as before. Without it tasks of infrastructure {infrastructure} don't run, as their traffic would go around the proxy",
		by:      berth.RemedyByEngineer,
	},
}
