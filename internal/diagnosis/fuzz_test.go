package diagnosis

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fit asserts what holds of every finding, whatever others wrote.
func fit(t *testing.T, f *Finding) {
	t.Helper()
	if f == nil {
		return
	}
	if f.Cause == "" || f.Summary == "" || f.Remedy.Text == "" || f.Remedy.By == "" || f.Since.After(testNow) {
		t.Errorf("incomplete: %+v", f)
	}
	if len(f.Evidence) > maxEvidence {
		t.Errorf("%d pieces of evidence", len(f.Evidence))
	}
	texts := map[string]int{f.Summary: 20 * maxWord, f.Remedy.Text: 20 * maxWord}
	for _, e := range f.Evidence {
		texts[e.Text], texts[e.Source] = maxText, maxText
	}
	for text, limit := range texts {
		if len(text) > limit || !utf8.ValidString(text) {
			t.Errorf("%d bytes, or not UTF-8: %q", len(text), text)
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Cf, r) }); i >= 0 {
			t.Errorf("not fit for a terminal: %q", text)
		}
	}
	if strings.ContainsAny(f.Summary, "\n\t") {
		t.Errorf("a summary of several lines: %q", f.Summary)
	}
}

// FuzzPod puts texts of anybody into a pod's status and events: into a fixture's
// own texts at a place, or instead of them, many times over.
func FuzzPod(f *testing.F) {
	all := fixtures(f)
	for i, one := range all {
		if one.Pod != nil {
			f.Add(i, 10, 1, "\x1b[31m", "Failed", false)
			f.Add(i, 0, 40, "0/3 nodes are available: 3 Insufficient cpu, ", "FailedScheduling", true)
		}
	}
	f.Fuzz(func(t *testing.T, index, at, times int, text, reason string, instead bool) {
		one := all[((index%len(all))+len(all))%len(all)].copied()
		if one.Pod == nil {
			return
		}
		if len(text) > 10_000 {
			text = text[:10_000]
		}
		insert := strings.Repeat(text, max(0, min(times, 50)))
		one.eachText(func(own string) string {
			if instead {
				return insert
			}
			cut := max(0, min(at, len(own)))
			return own[:cut] + insert + own[cut:]
		})
		for i := range one.Events {
			if instead {
				one.Events[i].Reason = reason
			}
		}
		one.Pod.Status.Reason += reason
		for _, seen := range []bool{true, false} {
			one.EventsUnseen = !seen
			fit(t, one.find(t))
		}
		ProgressOf(one.Pod, "main", one.Events, true, one.subject())
	})
}

// FuzzError puts texts of anybody into answers of an API server.
func FuzzError(f *testing.F) {
	for _, one := range fixtures(f) {
		if one.Status != nil {
			f.Add(one.Status.Message, one.Status.Code, string(one.Status.Reason), one.Request.Verb, one.Request.Resource)
		}
	}
	f.Add("\x1b]0;owned\x07exceeded quota: a, requested: cpu=1, used: cpu=, limited: cpu=x", int32(403), "Forbidden", "create", "pods")
	f.Fuzz(func(t *testing.T, text string, code int32, reason, verb, resource string) {
		status := &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: metav1.StatusReason(reason), Message: text}}
		plain := errors.New(text)
		for _, err := range []error{status, fmt.Errorf("wrapped: %w", status), plain, &url.Error{Op: http.MethodGet, URL: "https://cluster.example", Err: plain}} {
			finding := Error(err, verb, resource, Subject{Namespace: "berth", Image: text}, testNow)
			if finding == nil {
				t.Fatal("an error without a finding")
			}
			fit(t, finding)
		}
		if finding := Error(nil, verb, resource, Subject{}, testNow); finding != nil {
			t.Errorf("no error: %+v", finding)
		}
	})
}
