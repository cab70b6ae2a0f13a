package diagnosis

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth"
)

var (
	quotaExceeded = regexp.MustCompile(`exceeded quota: ([^\s,]+), requested: (.*?), used: (.*?), limited: (.*)`)
	quotaFailed   = regexp.MustCompile(`failed quota: ([^\s,:]+): must specify (.+)`)
	quotaUnknown  = regexp.MustCompile(`status unknown for quota: ([^\s,]+)`)
	quotaScope    = regexp.MustCompile(`insufficient quota to (?:match these scopes|consume): (.+)`)
	limitRange    = regexp.MustCompile(`is forbidden: \[?((?:maximum|minimum) \S+ usage per .+?|\S+ max limit to request ratio per .+?)\]?$`)
)

// quotaLine is one resource that a quota has too little of.
type quotaLine struct{ name, requested, used, limited string }

// parseQuota reads "cpu=1,memory=2Gi" three times, as the quota's admission
// plugin writes it.
func parseQuota(requested, used, limited string) []quotaLine {
	read := func(list string) map[string]string {
		values := map[string]string{}
		for pair := range strings.SplitSeq(list, ",") {
			if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok {
				values[k] = strings.TrimRight(v, ".")
			}
		}
		return values
	}
	r, u, l := read(requested), read(used), read(limited)
	var lines []quotaLine
	for name := range l {
		lines = append(lines, quotaLine{name, r[name], u[name], l[name]})
	}
	slices.SortFunc(lines, func(a, b quotaLine) int { return cmp.Compare(a.name, b.name) })
	return lines
}

// over returns by how much the request is too large, and whether it would be
// even if nothing else were in use.
func (q quotaLine) over() (missing string, always bool) {
	r, err1 := resource.ParseQuantity(q.requested)
	u, err2 := resource.ParseQuantity(q.used)
	l, err3 := resource.ParseQuantity(q.limited)
	if err1 != nil || err2 != nil || err3 != nil {
		return "", false
	}
	always = r.Cmp(l) > 0
	r.Add(u)
	r.Sub(l)
	return r.String(), always
}

func quotaHit(f *errorFacts) *hit {
	m := quotaExceeded.FindStringSubmatch(f.text)
	if f.status == nil || m == nil {
		return nil
	}
	var parts []string
	hopeless := false
	advice := "wait: it starts by itself when other work of the namespace has ended"
	if strings.Contains(m[2], "cpu") || strings.Contains(m[2], "memory") {
		advice += ", or ask for less with --cpu and --memory"
	}
	for _, q := range parseQuota(m[2], m[3], m[4]) {
		missing, always := q.over()
		part := fmt.Sprintf("%s: %s asked for, %s of %s in use", q.name, q.requested, q.used, q.limited)
		if missing != "" {
			part += ", " + missing + " too much"
		}
		parts = append(parts, part)
		if always {
			hopeless = true
			advice = fmt.Sprintf("ask for at most %s of %s: this request is larger than the whole quota, so waiting does not help", q.limited, q.name)
		}
	}
	h := f.hit("quota", m[1], "lines", strings.Join(parts, "; "), "advice", advice)
	h.hopeless = hopeless
	return h
}

// unsaid matches a quota on what the pod does not say, and tells the flags that do.
func unsaid(f *errorFacts) *hit {
	h := says(quotaFailed, nil, "quota", "missing")(f)
	if h == nil {
		return nil
	}
	var say, defaults []string
	for _, f := range flags {
		if strings.Contains(h.words["missing"], f.resource) {
			say = append(say, f.flag)
			if f.example != "" {
				defaults = append(defaults, f.example)
			}
		}
	}
	if len(say) == 0 {
		say = []string{h.words["missing"]}
	}
	h.words["flags"], h.words["defaults"] = strings.Join(say, " and "), "{"+strings.Join(defaults, ", ")+"}"
	return h
}

var quotaRows = []row{
	{
		cause: berth.CauseQuotaExceeded, rank: 600, onError: quotaHit, retry: RetryQuota, patience: berth.PatienceForever,
		means:   "The namespace's quota has no room for the task now. It stays queued and starts when there is room.",
		summary: "Quota {quota} of namespace {namespace} has no room ({lines}).",
		remedy:  "{advice}; a larger quota is for the cluster's engineer to give",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseQuotaExceeded, rank: 601, onError: unsaid, patience: berth.PatienceNone,
		means:   "The namespace has a quota, and with it every task has to say how much it needs.",
		summary: "Quota {quota} of namespace {namespace} wants every task to say how much it needs: {missing}.",
		remedy:  "add {flags} to the command, or set defaults: {defaults} of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseQuotaExceeded, rank: 602, onError: says(quotaUnknown, []int{http.StatusForbidden}, "quota"), retry: RetryTransient,
		means:   "A new quota has not been counted yet; this passes within seconds.",
		summary: "Quota {quota} of namespace {namespace} has not been counted yet by the cluster.",
		remedy:  "wait some seconds; if it stays, the cluster's quota controller has to be mended",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseQuotaExceeded, rank: 603, onError: says(quotaScope, nil, "scope"), retry: RetryQuota, patience: berth.PatienceForever,
		means:   "Work of this priority is only allowed where a quota provides for it.",
		summary: "Namespace {namespace} has no quota for work of this kind: {scope}.",
		remedy:  "correct pod: priority_class of infrastructure {infrastructure} in infra.yml, or ask for a quota for it",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseLimitRangeViolated, rank: 610, onError: says(limitRange, []int{http.StatusForbidden}, "limits"), patience: berth.PatienceNone,
		means:   "The namespace allows a container less, or wants it to ask for more, than the task does (a LimitRange).",
		summary: "Namespace {namespace} does not allow a task of this size: {limits}.",
		remedy:  "change --cpu{cpu_now}, or --memory{memory_now}, to what the limits allow",
		by:      berth.RemedyByUser,
	},
}
