package diagnosis

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

var (
	tooMuchCPU   = Breach{BreachMax, "small", "cpu", "2", "500m"}
	tooLittle    = Breach{BreachMin, "small", "memory", "16Mi", "64Mi"}
	wholeQuota   = Breach{BreachQuota, "team", "requests.memory", "3Gi", "1Gi"}
	unsaidCPU    = Breach{BreachUnsaid, "team", "limits.cpu", "0", "4"}
	noPods       = Breach{BreachQuota, "team", "pods", "1", "0"}
	siteA        = Subject{Infrastructure: "site-a", Namespace: "berth", Pod: "berth-d3k1-1"}
	quotaRefusal = &apierrors.StatusError{ErrStatus: metav1.Status{Status: "Failure", Reason: "Forbidden", Code: 403,
		Message: `pods "berth-d3k1-1" is forbidden: exceeded quota: team, requested: requests.memory=3Gi, used: requests.memory=0, limited: requests.memory=1Gi`}}
)

func TestBreachesSayTheNumbersAndTheFlags(t *testing.T) {
	for _, test := range []struct {
		breaches []Breach
		cause    berth.Cause
		summary  string
		remedy   string
	}{
		{
			[]Breach{tooMuchCPU, tooLittle}, berth.CauseLimitRangeViolated,
			"Namespace berth does not allow a task of this size: LimitRange small allows at most 500m of cpu, and 2 is asked for; LimitRange small wants at least 64Mi of memory, and 16Mi is asked for.",
			"use --cpu 500m or less, use --memory 64Mi or more; other limits are for the cluster's engineer to set",
		},
		{
			[]Breach{wholeQuota, unsaidCPU}, berth.CauseQuotaExceeded,
			"Namespace berth has no quota for a task like this, even if nothing else runs: quota team has 1Gi of requests.memory in all, and 3Gi is asked for; quota team counts limits.cpu (4 in all), which the task does not say.",
			"use --memory 1Gi or less, add --cpu; a larger quota is for the cluster's engineer to give",
		},
		{
			[]Breach{noPods}, berth.CauseQuotaExceeded,
			"Namespace berth has no quota for a task like this, even if nothing else runs: quota team has 0 of pods in all, and 1 is asked for.",
			"ask for at most 0 of pods; a larger quota is for the cluster's engineer to give",
		},
	} {
		f := Breaches(test.breaches, siteA, testNow)
		if f.Cause != test.cause || f.Summary != test.summary || f.Remedy.Text != test.remedy || !f.Hopeless || len(f.Evidence) != len(test.breaches) {
			t.Errorf("%+v", f)
		}
	}
	if Breaches(nil, siteA, testNow) != nil {
		t.Error("no breach is a finding")
	}
}

func TestARefusalIsDetailedByAllThatIsBroken(t *testing.T) {
	f := Error(quotaRefusal, "create", "pods", siteA, testNow)
	f.Detail([]Breach{tooMuchCPU, wholeQuota})
	if !strings.HasPrefix(f.Remedy.Text, "use --cpu 500m or less, use --memory 1Gi or less; ") || !strings.Contains(f.Remedy.Text, "engineer") || len(f.Evidence) != 3 {
		t.Errorf("%+v", f)
	}
	f = Error(quotaRefusal, "create", "pods", siteA, testNow)
	before := f.Remedy.Text
	f.Detail([]Breach{tooMuchCPU})
	if f.Remedy.Text != before || len(f.Evidence) != 1 {
		t.Errorf("what it is not about was added: %+v", f)
	}
}

// What is refused at once, and what is left to wait.
func TestWhatIsHopeless(t *testing.T) {
	hopeless := map[string]bool{
		"LimitRangeViolated": true, "PodSecurityViolated": true, "AdmissionDenied": true, "AdmissionDenied-policy": true,
		"PriorityClassNotFound": true, "RuntimeClassNotFound": true, "ServiceAccountNotFound": true, "Forbidden": true,
		"QuotaExceeded-larger-than-all": true, "QuotaExceeded-unsaid": true,

		"QuotaExceeded": false, "QuotaExceeded-uncounted": false, "ServiceAccountNotFound-default": false, "AdmissionDenied-webhook-down": false,
		"ClusterUnreachable-refused": false, "Unauthorized": false, "Unknown-odd": false,
	}
	for _, f := range fixtures(t) {
		want, named := hopeless[f.name]
		if !named {
			continue
		}
		delete(hopeless, f.name)
		if got := f.find(t); got.Hopeless != want {
			t.Errorf("%s: hopeless %t: %s", f.name, got.Hopeless, got.Summary)
		}
	}
	for name := range hopeless {
		t.Errorf("there is no fixture %s", name)
	}
}
