package diagnosis

import (
	"cmp"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

var (
	rbac             = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]+)" in API group "([^"]*)"`)
	anonymous        = regexp.MustCompile(`User "system:anonymous" cannot`)
	noNamespace      = regexp.MustCompile(`namespaces "([^"]+)" not found`)
	endingNamespace  = regexp.MustCompile(`namespace (\S+) (?:because it )?is being terminated`)
	notKubernetes    = regexp.MustCompile(`^the server could not find the requested resource`)
	credentialPlugin = regexp.MustCompile(`getting credentials: (.+)`)
)

// refusedVerb matches a verb that the role lacks.
func refusedVerb(f *errorFacts) *hit {
	if f.code() != http.StatusForbidden {
		return nil
	}
	m := rbac.FindStringSubmatch(f.text)
	if m == nil {
		if otherwise.MatchString(f.text) {
			return nil // forbidden by something else
		}
		m = []string{"", "its user", f.verb, f.resource, ""}
	}
	user, verb, object, group := m[1], m[2], m[3], m[4]
	name, sub, _ := strings.Cut(object, "/")
	profile := cmp.Or(f.subject.Profile, string(permissions.Tasks))
	what := ""
	if p, ok := permissions.FindOf(permissions.Profile(f.subject.Profile), verb, group, name, sub); ok {
		profile, what = string(p.Profile), ", needed "+p.For
	}
	return f.hit("user", user, "verb", verb, "resource", object, "profile", profile, "what", what)
}

var accessRows = []row{
	{
		cause: berth.CauseNamespaceTerminating, rank: 700, patience: berth.PatienceNone,
		onError: func(f *errorFacts) *hit {
			if f.status == nil || !apierrors.HasStatusCause(f.err, "NamespaceTerminating") && !endingNamespace.MatchString(f.text) {
				return nil
			}
			return f.hit()
		},
		means:   "The namespace is being deleted, and takes nothing new.",
		summary: "Namespace {namespace} is being deleted, so it takes no new work.",
		remedy:  "use another namespace, or ask for this one to be made again",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseNamespaceNotFound, rank: 710, patience: berth.PatienceNone, onError: says(noNamespace, []int{http.StatusNotFound}, "namespace"),
		means:   "The cluster has no namespace of that name.",
		summary: "The cluster of infrastructure {infrastructure} has no namespace {namespace}.",
		remedy:  "correct namespace: of infrastructure {infrastructure} in infra.yml, or ask for the namespace to be made",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseUnauthorized, rank: 720, retry: RetryUnauthorized, patience: berth.PatienceForever,
		onError: func(f *errorFacts) *hit {
			if f.code() == http.StatusUnauthorized || f.status != nil && f.status.Reason == metav1.StatusReasonUnauthorized {
				return f.hit("why", "it does not accept the credentials: they are wrong, expired or revoked")
			}
			if f.code() == http.StatusForbidden && anonymous.MatchString(f.text) {
				return f.hit("why", "no credentials reached it, so it takes us for anonymous")
			}
			return nil
		},
		means:   "The API server does not accept the credentials: wrong, expired or revoked. Tasks stay as they are, and the credentials are read again.",
		summary: "The cluster of infrastructure {infrastructure} does not let us in: {why}.",
		remedy:  "get a new kubeconfig (berth create-kubeconfig, or your cluster's login command) and put it in place of the old one; it is read again by itself",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseUnauthorized, rank: 721, retry: RetryUnauthorized, patience: berth.PatienceForever,
		onError: func(f *errorFacts) *hit {
			m := credentialPlugin.FindStringSubmatch(f.text)
			if f.status != nil || m == nil {
				return nil
			}
			return f.hit("why", m[1])
		},
		means:   "The program that the kubeconfig names for getting credentials is missing or fails.",
		summary: "The kubeconfig of infrastructure {infrastructure} gets its credentials from another program, and that does not work: {why}.",
		remedy:  "install that program where Berth runs and log in with it, or use a kubeconfig with credentials of its own (berth create-kubeconfig)",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseForbidden, rank: 730, retry: RetryForbidden, patience: berth.PatienceForever, onError: refusedVerb,
		means:   "The kubeconfig's role lacks a verb on a resource.",
		summary: "This kubeconfig ({user}) may not {verb} {resource} in namespace {namespace}{what}.",
		remedy:  "have the role extended: berth create-kubeconfig -n {namespace} --profile {profile} makes one with {verb} on {resource}",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 740, retry: RetryExists,
		onError: func(f *errorFacts) *hit {
			if f.status == nil || f.status.Reason != metav1.StatusReasonAlreadyExists {
				return nil
			}
			return f.hit()
		},
		means:   "An object of that name is there already. Berth looks whether it is its own.",
		summary: "Namespace {namespace} has {pod} already.",
		remedy:  "nothing: Berth looks whether it is its own, and takes another name otherwise",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseUnknown, rank: 750, retry: RetryNotFound,
		onError: func(f *errorFacts) *hit {
			if f.code() != http.StatusNotFound && (f.status == nil || f.status.Reason != metav1.StatusReasonNotFound) || notKubernetes.MatchString(f.text) {
				return nil
			}
			return f.hit()
		},
		means:   "What was asked for isn't there.",
		summary: "Namespace {namespace} does not have it: {message}.",
		remedy:  "nothing, if it was deleted on purpose",
		by:      berth.RemedyByUser,
	},
}
