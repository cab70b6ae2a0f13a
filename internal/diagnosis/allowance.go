package diagnosis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// BreachKind is how a pod breaks a limit of its namespace.
type BreachKind int

const (
	BreachMax    BreachKind = iota // more than a LimitRange allows
	BreachMin                      // less than a LimitRange wants
	BreachQuota                    // more than a whole quota
	BreachUnsaid                   // a quota counts it, and the pod does not say it
)

// Breach is a limit that a pod breaks by itself, found by comparing the two.
type Breach struct {
	Kind     BreachKind
	Rule     string // name of the LimitRange or the quota
	Resource string // as the rule names it: cpu, limits.memory, requests.nvidia.com/gpu
	Asked    string
	Bound    string
}

// allowanceRows are found by comparing a pod with the limits of its namespace,
// before it is made.
var allowanceRows = []row{
	{
		cause: berth.CauseLimitRangeViolated, rank: 980, patience: berth.PatienceNone, hopeless: true,
		means:   "The task breaks a LimitRange of the namespace. Found before it was submitted.",
		summary: "Namespace {namespace} does not allow a task of this size: {lines}.",
		remedy:  "{advice}; other limits are for the cluster's engineer to set",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseQuotaExceeded, rank: 981, patience: berth.PatienceNone, hopeless: true,
		means:   "The task asks for more than a whole quota of the namespace, or does not say what a quota counts. Found before it was submitted.",
		summary: "Namespace {namespace} has no quota for a task like this, even if nothing else runs: {lines}.",
		remedy:  "{advice}; a larger quota is for the cluster's engineer to give",
		by:      berth.RemedyByUser,
	},
}

// Breaches says what is wrong with a pod that breaks limits of its namespace;
// nil when it breaks none.
func Breaches(breaches []Breach, subject Subject, now time.Time) *Finding {
	if len(breaches) == 0 {
		return nil
	}
	row := &allowanceRows[1]
	if breaches[0].limitRange() {
		row = &allowanceRows[0]
	}
	h := &hit{words: map[string]string{"advice": advise(breaches)}}
	var lines []string
	for _, b := range breaches {
		lines = append(lines, b.String())
		h.evidence = append(h.evidence, b.evidence())
	}
	h.words["lines"] = strings.Join(lines, "; ")
	return row.finding(h, subject.words(), now)
}

// Detail adds to a finding of the API server what comparing the pod with the
// limits of its namespace shows: all that it breaks, not the first alone, and
// which flags to change.
func (f *Finding) Detail(breaches []Breach) {
	related := slices.ContainsFunc(breaches, func(b Breach) bool { return b.limitRange() == (f.Cause == berth.CauseLimitRangeViolated) })
	if f.Cause != berth.CauseLimitRangeViolated && f.Cause != berth.CauseQuotaExceeded || !related {
		return
	}
	_, whose, _ := strings.Cut(f.Remedy.Text, "; ")
	f.Remedy.Text = advise(breaches)
	if whose != "" {
		f.Remedy.Text += "; " + whose
	}
	for _, b := range breaches {
		f.addEvidence([]berth.Evidence{b.evidence()})
	}
}

func (b Breach) limitRange() bool { return b.Kind == BreachMax || b.Kind == BreachMin }

func (b Breach) evidence() berth.Evidence {
	return berth.Evidence{Source: "limits of the namespace", Text: b.String()}
}

func (b Breach) String() string {
	switch b.Kind {
	case BreachMax:
		return fmt.Sprintf("LimitRange %s allows at most %s of %s, and %s is asked for", b.Rule, b.Bound, b.Resource, b.Asked)
	case BreachMin:
		return fmt.Sprintf("LimitRange %s wants at least %s of %s, and %s is asked for", b.Rule, b.Bound, b.Resource, b.Asked)
	case BreachQuota:
		return fmt.Sprintf("quota %s has %s of %s in all, and %s is asked for", b.Rule, b.Bound, b.Resource, b.Asked)
	}
	return fmt.Sprintf("quota %s counts %s (%s in all), which the task does not say", b.Rule, b.Resource, b.Bound)
}

// flags are the flags of berth run by what the end of a resource's name is.
var flags = []struct{ resource, flag, example string }{
	{"cpu", "--cpu", "cpu: 500m"}, {"memory", "--memory", "memory: 512Mi"}, {"ephemeral-storage", "--ephemeral-storage", ""}, {"gpu", "--gpu", ""},
}

// flagFor is the flag by which a resource is asked for, "" for none.
func flagFor(resource string) string {
	for _, f := range flags {
		if strings.HasSuffix(resource, f.resource) {
			return f.flag
		}
	}
	return ""
}

// advise names the flags to change, and to what.
func advise(breaches []Breach) string {
	var parts []string
	say := func(part string) {
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	for _, b := range breaches {
		flag := flagFor(b.Resource)
		switch {
		case flag == "" && b.Kind == BreachMin:
			say("ask for at least " + b.Bound + " of " + b.Resource)
		case flag == "":
			say("ask for at most " + b.Bound + " of " + b.Resource)
		case b.Kind == BreachMin:
			say("use " + flag + " " + b.Bound + " or more")
		case b.Kind == BreachUnsaid:
			say("add " + flag)
		default:
			say("use " + flag + " " + b.Bound + " or less")
		}
	}
	return strings.Join(parts, ", ")
}
