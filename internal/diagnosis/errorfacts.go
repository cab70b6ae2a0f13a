package diagnosis

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// errorFacts is what the matchers of API errors look at.
type errorFacts struct {
	subject        Subject
	err            error
	text           string         // the whole error
	status         *metav1.Status // nil when no API server answered
	verb, resource string
	changes        bool // the request changes something
}

func newErrorFacts(err error, verb, resource string, subject Subject) *errorFacts {
	f := &errorFacts{err: err, text: err.Error(), verb: verb, resource: resource, subject: subject}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s := status.Status()
		f.status, f.text = &s, cmp.Or(s.Message, f.text)
	}
	f.text = plain(f.text)
	switch verb {
	case "create", "update", "patch", "delete", "deletecollection":
		f.changes = true
	}
	return f
}

func (f *errorFacts) words() map[string]string {
	w := f.subject.words()
	w["verb"], w["resource"] = word(cmp.Or(f.verb, "do")), word(cmp.Or(f.resource, "what was asked"))
	w["message"] = strings.TrimRight(word(f.text), ".")
	return w
}

// hit is a hit with the error as its evidence.
func (f *errorFacts) hit(pairs ...string) *hit {
	if f.status == nil {
		return saw(berth.Evidence{Source: "connection to the API server", Text: f.text}, pairs...)
	}
	source := "API server"
	if f.status.Code != 0 {
		source = fmt.Sprintf("API server, HTTP %d", f.status.Code)
	}
	return saw(berth.Evidence{Source: source, Text: f.text}, pairs...)
}

// code returns the HTTP status, 0 when no API server answered.
func (f *errorFacts) code() int {
	if f.status == nil {
		return 0
	}
	if f.status.Code == 0 && f.status.Reason == metav1.StatusReasonForbidden {
		return http.StatusForbidden
	}
	return int(f.status.Code)
}

// says makes the matcher of an answer of the API server by its text; codes
// narrow it to those HTTP statuses, groups name what the pattern captures.
func says(pattern *regexp.Regexp, codes []int, groups ...string) func(*errorFacts) *hit {
	return func(f *errorFacts) *hit {
		if f.status == nil {
			return nil
		}
		if len(codes) > 0 {
			ok := false
			for _, code := range codes {
				ok = ok || f.code() == code
			}
			if !ok {
				return nil
			}
		}
		m := pattern.FindStringSubmatch(f.text)
		if m == nil {
			return nil
		}
		h := f.hit()
		for i, name := range groups {
			h.words[name] = strings.TrimRight(m[i+1], ". \n")
		}
		return h
	}
}
