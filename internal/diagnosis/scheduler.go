package diagnosis

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// schedulerMessage is what the scheduler says of a pod that fits nowhere:
//
//	0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: yes}. preemption: 0/3 nodes are ...
//
// It is written by FitError.Error of pkg/scheduler/framework/types.go. After the
// reasons come the words of plugins that tried to make room, with commas between
// them: since 1.34 "no new claims to deallocate, preemption: 0/3 nodes are ...".
type schedulerMessage struct {
	text    string
	fit     int
	nodes   int          // 0 when it doesn't say
	reasons []nodeReason // one node may count in several
	preempt []nodeReason // why evicting others doesn't help, nodes counted
}

// nodeReason is why that many nodes don't fit. A reason without a number
// (found before nodes were looked at) counts for all.
type nodeReason struct {
	nodes int
	text  string
}

var (
	schedulerHead = regexp.MustCompile(`^\s*(\d{1,9})/(\d{1,9}) nodes are available:?\s*`)
	counted       = regexp.MustCompile(`^(\d{1,9}) (.+)$`)
	nextCounted   = regexp.MustCompile(`, \d{1,9} `)
	roomMaking    = regexp.MustCompile(`\. (?:[^.]*, |no new claims to deallocate\.?|deallocation of ResourceClaim completed\.?)$`)
	taintText     = regexp.MustCompile(`\{([^{}]*)\}`)
)

func parseScheduler(text string) *schedulerMessage {
	m := &schedulerMessage{text: text}
	text = clean(text)
	body, preemption, _ := strings.Cut(text, "preemption: ")
	body = roomMaking.ReplaceAllString(body, ".")
	m.fit, m.nodes, m.reasons = parseReasons(body)
	_, _, m.preempt = parseReasons(preemption)
	return m
}

func parseReasons(text string) (fit, nodes int, reasons []nodeReason) {
	if head := schedulerHead.FindStringSubmatch(text); head != nil {
		fit, _ = strconv.Atoi(head[1])
		nodes, _ = strconv.Atoi(head[2])
		text = text[len(head[0]):]
	}
	for text = strings.TrimSpace(text); text != ""; {
		part := text
		if at := nextCounted.FindStringIndex(text); at != nil && counted.MatchString(text) {
			part, text = text[:at[0]], text[at[0]+2:]
		} else {
			text = ""
		}
		part = strings.TrimRight(strings.TrimSpace(part), ".")
		part = strings.TrimSuffix(part, ". not found") // 1.34 says it twice of a claim
		r := nodeReason{nodes, part}
		if c := counted.FindStringSubmatch(part); c != nil {
			n, _ := strconv.Atoi(c[1])
			r = nodeReason{n, c[2]}
		}
		if r.text != "" {
			reasons = append(reasons, r)
		}
	}
	return fit, nodes, reasons
}

// find returns the reasons that match, and how many nodes have the commonest.
func (m *schedulerMessage) find(pattern *regexp.Regexp) (found []nodeReason, nodes int) {
	for _, r := range m.reasons {
		if pattern.MatchString(r.text) {
			found = append(found, r)
			nodes = max(nodes, r.nodes)
		}
	}
	return found, nodes
}

// scarcest reports whether no other resource is missing on more nodes.
func (m *schedulerMessage) scarcest(nodes int) bool {
	return !slices.ContainsFunc(m.reasons, func(r nodeReason) bool { return insufficient.MatchString(r.text) && r.nodes > nodes })
}

// tooLarge reports whether no node could hold the pod even if it were empty.
// Schedulers that know (Kubernetes 1.31 and later) then say of all nodes that
// evicting others doesn't help; older ones say so of no resource.
func (m *schedulerMessage) tooLarge(pattern *regexp.Regexp) bool {
	if m.nodes == 0 || len(m.reasons) != 1 || !pattern.MatchString(m.reasons[0].text) {
		return false
	}
	return len(m.preempt) == 1 && m.preempt[0].nodes >= m.nodes && strings.Contains(m.preempt[0].text, "Preemption is not helpful")
}

// counts says the reasons in few words: "2 Insufficient cpu, 1 untolerated taint gpu=yes".
func (m *schedulerMessage) counts() string {
	parts := make([]string, 0, len(m.reasons))
	for _, r := range m.reasons {
		text := r.text
		if taint := taintText.FindStringSubmatch(text); taint != nil && strings.Contains(text, "untolerated taint") {
			text = "untolerated taint " + taintName(taint[1])
		}
		text = strings.TrimPrefix(text, "node(s) had ")
		text = strings.TrimPrefix(text, "node(s) ")
		if r.nodes > 0 {
			text = fmt.Sprintf("%d %s", r.nodes, text)
		}
		parts = append(parts, text)
	}
	return cmp.Or(strings.Join(parts, ", "), "no reason given")
}

// nodesFit says "0 of 3 nodes fit (...)", or only the reasons.
func (m *schedulerMessage) nodesFit() string {
	if m.nodes == 0 {
		return m.counts()
	}
	return fmt.Sprintf("%d of %d nodes fit (%s)", m.fit, m.nodes, m.counts())
}

// taints returns the taints that the message names: "gpu=yes, dedicated".
func (m *schedulerMessage) taints() string {
	var names []string
	for _, r := range m.reasons {
		if taint := taintText.FindStringSubmatch(r.text); taint != nil && strings.Contains(r.text, "untolerated taint") {
			names = append(names, taintName(taint[1]))
		}
	}
	return strings.Join(names, ", ")
}

// taintName writes "key: value" as kubectl does: key=value.
func taintName(text string) string {
	key, value, _ := strings.Cut(text, ":")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if value == "" {
		return key
	}
	return key + "=" + value
}
