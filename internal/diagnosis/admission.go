package diagnosis

import (
	"net/http"
	"regexp"

	"github.com/berth-run/berth"
)

var (
	podSecurity   = regexp.MustCompile(`(?s)violates PodSecurity "([^":]+)[^"]*": (.+)`)
	openshiftSCC  = regexp.MustCompile(`(?s)unable to validate against any (security context constraint|pod security policy): (.+)`)
	webhookDenied = regexp.MustCompile(`(?s)admission webhook "([^"]+)" denied the request(?:: | )?(.*)`)
	webhookDead   = regexp.MustCompile(`(?s)failed calling webhook "([^"]+)"|failed to call webhook|conversion webhook for .+ failed`)
	policyDenied  = regexp.MustCompile(`(?s)ValidatingAdmissionPolicy '([^']+)' with binding '[^']+' denied request: (.+)`)
	noPriority    = regexp.MustCompile(`no PriorityClass with name (\S+) was found`)
	noRuntime     = regexp.MustCompile(`RuntimeClass "([^"]+)" not found`)
	noAccount     = regexp.MustCompile(`error looking up service account \S+/(\S+): (.+)`)
	otherwise     = regexp.MustCompile(`(?s)is (?:forbidden|invalid): (.+)`)
	tooBig        = regexp.MustCompile(`(?i)request is too large|request entity too large|etcdserver: request is too large`)
)

// serviceAccountGone matches a missing service account; that named default
// comes by itself in a namespace that has just been made.
func serviceAccountGone(byItself bool) func(*errorFacts) *hit {
	matches := says(noAccount, nil, "account", "detail")
	return func(f *errorFacts) *hit {
		h := matches(f)
		if h == nil || (h.words["account"] == "default:" || h.words["account"] == "default") != byItself {
			return nil
		}
		return h
	}
}

var admissionRows = []row{
	{
		cause: berth.CausePodSecurityViolated, rank: 620, onError: says(podSecurity, []int{http.StatusForbidden}, "level", "violations"), patience: berth.PatienceNone,
		means:   "The namespace's security level (Pod Security Standards) forbids something that the pod does.",
		summary: "Namespace {namespace} has security level {level}, which forbids this task: {violations}.",
		remedy:  "set pod: {security: {level}} of infrastructure {infrastructure} in infra.yml and run as a numbered user with --user; a laxer level is for the cluster's engineer to give",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CausePodSecurityViolated, rank: 621, onError: says(openshiftSCC, nil, "level", "violations"), patience: berth.PatienceNone,
		means:   "No security context constraint of the cluster (OpenShift) allows what the pod does.",
		summary: "No {level} of the cluster allows this task: {violations}.",
		remedy:  "leave --user away, or have the namespace's service account allowed to use a fitting constraint",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 630, onError: says(webhookDenied, nil, "webhook", "answer"), patience: berth.PatienceNone,
		means:   "A rule that the cluster's engineers made (an admission webhook) refuses the pod.",
		summary: "A rule of the cluster, {webhook}, refuses this task: {answer}.",
		remedy:  "change what the message objects to, or ask whoever runs {webhook}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 631, onError: says(policyDenied, nil, "policy", "answer"), patience: berth.PatienceNone,
		means:   "A rule that the cluster's engineers made (a ValidatingAdmissionPolicy) refuses the pod.",
		summary: "A rule of the cluster, policy {policy}, refuses this task: {answer}.",
		remedy:  "change what the message objects to, or ask who made policy {policy}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 632, retry: RetryTransient,
		onError: func(f *errorFacts) *hit {
			if f.status == nil || !webhookDead.MatchString(f.text) {
				return nil
			}
			return f.hit("webhook", firstGroup(webhookDead, f.text))
		},
		means:   "A rule that has to be asked about every pod (an admission webhook) can't be reached. Berth tries again.",
		summary: "The cluster can accept nothing new at the moment, because its rule {webhook} does not answer.",
		remedy:  "wait; if it stays, the service behind webhook {webhook} has to be mended",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseServiceAccountNotFound, rank: 640, retry: RetryTransient, patience: berth.PatienceStart, onError: serviceAccountGone(true),
		means:   "The namespace is so new that its default service account is not there yet; this passes within seconds.",
		summary: "Namespace {namespace} does not have its service account default yet, which the cluster makes by itself.",
		remedy:  "wait some seconds; if it stays, the cluster's controller manager is not working",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseServiceAccountNotFound, rank: 641, retry: RetryTransient, hopeless: true, patience: berth.PatienceConfig, onError: serviceAccountGone(false),
		means:   "The service account that pod: service_account names isn't in the namespace.",
		summary: "Namespace {namespace} has no service account {service_account}.",
		remedy:  "correct pod: service_account of infrastructure {infrastructure} in infra.yml, or have it created",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CausePriorityClassNotFound, rank: 650, patience: berth.PatienceNone, onError: says(noPriority, nil, "name"),
		means:   "The cluster has no priority class of that name.",
		summary: "The cluster has no priority class {name}.",
		remedy:  "correct pod: priority_class of infrastructure {infrastructure} in infra.yml, or have it created",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseRuntimeClassNotFound, rank: 660, patience: berth.PatienceNone, onError: says(noRuntime, nil, "name"),
		means:   "The cluster has no runtime class of that name.",
		summary: "The cluster has no runtime class {name}.",
		remedy:  "correct pod: runtime_class of infrastructure {infrastructure} in infra.yml, or have it created",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 670, patience: berth.PatienceNone, onError: says(tooBig, nil),
		means:   "The pod's description is larger than the cluster stores, usually for its arguments and environment.",
		summary: "The task's description is too large for the cluster: {message}.",
		remedy:  "put large arguments and environment variables into files",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 770, patience: berth.PatienceNone,
		onError: says(otherwise, []int{http.StatusForbidden, http.StatusUnprocessableEntity}, "answer"),
		means:   "The cluster refuses the pod as invalid or against a rule of its own.",
		summary: "The cluster refuses this task: {answer}.",
		remedy:  "change what the message objects to, or show it to the cluster's engineer",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 771, patience: berth.PatienceNone,
		onError: func(f *errorFacts) *hit {
			if !f.changes || f.code() != http.StatusBadRequest && f.code() != http.StatusUnprocessableEntity {
				return nil
			}
			return f.hit()
		},
		means:   "The API server can't make sense of the request.",
		summary: "The cluster refuses this task: {message}.",
		remedy:  "change what the message objects to, or show it to the cluster's engineer",
		by:      berth.RemedyByUser,
	},
}
