package diagnosis

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// row is one line of the table. Exactly one of onPod, onError and onDocker is
// set; all are nil for what only the engine can know (see engine.go). The texts hold
// {placeholders} that the facts and the hit fill in.
type row struct {
	cause berth.Cause
	rank  int    // the lowest that matches is the cause; unique
	means string // for docs/diagnosis.md: what happened, in general

	onPod    func(*podFacts) *hit
	onError  func(*errorFacts) *hit
	onDocker func(*dockerFacts) *hit

	summary string // one sentence with the concrete names and numbers
	remedy  string
	by      berth.RemedyBy

	patience       berth.Patience
	infrastructure bool
	began          bool // though the runtime says that the start failed
	retry          Retry
	hopeless       bool // though it is tried again: waiting alone does not help
	exitCode       int  // 0: the container's own is right
}

// hit is what a matcher found: the words for the texts, and what it saw.
type hit struct {
	words    map[string]string
	evidence []berth.Evidence
	unknown  bool // a request that changes something and may have been done: RetryUnknown
	hopeless bool // waiting alone does not help, though the row is tried again
}

type match struct {
	row *row
	hit *hit
}

// table is every cause that is told from what a cluster says.
var table = slices.Concat(
	endingRows, rejectionRows, exitRows, proxyRows, containerRows, imageRows, preparationRows, dfsRows, schedulingRows,
	quotaRows, admissionRows, accessRows, connectionRows, dockerEndingRows, dockerImageRows, dockerRefusalRows, engineRows, allowanceRows, agentRows, unknownRows,
)

// best makes the finding of the best-ranked match; what the others saw stays
// in the evidence.
func best(found []match, words map[string]string, now time.Time) *Finding {
	if len(found) == 0 {
		return nil
	}
	slices.SortStableFunc(found, func(a, b match) int { return cmp.Compare(a.row.rank, b.row.rank) })
	finding := found[0].row.finding(found[0].hit, words, now)
	seen := found[0].hit.evidence
	for _, other := range found[1:] {
		more := slices.DeleteFunc(slices.Clone(other.hit.evidence), func(e berth.Evidence) bool { return slices.Contains(seen, e) })
		finding.addEvidence(more)
		seen = append(seen[:len(seen):len(seen)], more...)
	}
	return finding
}

// finding writes the texts of a row.
func (r *row) finding(h *hit, words map[string]string, now time.Time) *Finding {
	all := make(map[string]string, len(words)+len(h.words))
	for k, v := range words {
		all[k] = v
	}
	for k, v := range h.words {
		all[k] = word(v)
	}
	f := &Finding{
		Diagnosis: berth.Diagnosis{
			Cause: r.cause, Summary: fill(r.summary, all), Since: now,
			Remedy: berth.Remedy{Text: fill(r.remedy, all), By: r.by},
		},
		Patience: r.patience, Infrastructure: r.infrastructure, Began: r.began, Retry: r.retry,
		Hopeless: r.hopeless || h.hopeless || r.final(),
	}
	if h.unknown {
		f.Retry = RetryUnknown
	}
	if r.exitCode != 0 {
		code := r.exitCode
		f.ExitCode = &code
	}
	f.addEvidence(h.evidence)
	return f
}

// final reports whether the row is a refusal for good.
func (r *row) final() bool {
	refusal := r.onError != nil || r.onDocker != nil
	return refusal && r.cause != berth.CauseUnknown && (r.retry == RetryNone || r.retry == RetryForbidden)
}

// addEvidence appends what is not there already, as long as a person can read it.
func (f *Finding) addEvidence(evidence []berth.Evidence) {
	for _, e := range evidence {
		if len(f.Evidence) >= maxEvidence-1 { // one is left for what could not be seen
			return
		}
		if e.Text = clean(e.Text); e.Text != "" && !slices.Contains(f.Evidence, e) {
			f.Evidence = append(f.Evidence, e)
		}
	}
}

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// fill replaces the placeholders of a text of the table, in one pass: what is
// filled in is never looked at again. A missing word shows as its name.
func fill(text string, words map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		if v, ok := words[p[1:len(p)-1]]; ok {
			return v
		}
		return p
	})
}

// saw is a hit with one piece of evidence and pairs of words.
func saw(e berth.Evidence, pairs ...string) *hit {
	h := &hit{words: map[string]string{}, evidence: []berth.Evidence{e}}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.words[pairs[i]] = pairs[i+1]
	}
	return h
}

func joinSorted(parts []string) string {
	parts = slices.Sorted(slices.Values(parts))
	return strings.Join(parts, ", ")
}
