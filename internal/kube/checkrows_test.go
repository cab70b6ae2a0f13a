package kube

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// holds checks a row's status and what it has to say.
func holds(t *testing.T, row berth.CheckRow, status berth.CheckStatus, words ...string) {
	t.Helper()
	if row.Status != status || (row.Remedy == "") != (status == berth.CheckOK) {
		t.Errorf("want %s: %+v", status, row)
	}
	for _, word := range words {
		if !strings.Contains(row.Detail, word) {
			t.Errorf("it does not say %q: %s", word, row.Detail)
		}
	}
}

func TestClocksThatAreApartAreWarnedOf(t *testing.T) {
	holds(t, clockRow(400*time.Millisecond), berth.CheckOK, "within 1s")
	holds(t, clockRow(-29*time.Second), berth.CheckOK, "within 29s")
	holds(t, clockRow(130*time.Second), berth.CheckWarning, "2m10s ahead of", "tokens and certificates")
	holds(t, clockRow(-time.Hour), berth.CheckWarning, "1h0m0s behind")
}

func TestCredentialsThatEndSoonAreWarnedOf(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	token := func(left time.Duration) *rest.Config {
		payload := fmt.Sprintf(`{"exp": %d}`, now.Add(left).Unix())
		return &rest.Config{BearerToken: "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".x"}
	}
	holds(t, credentialsRow(token(20*24*time.Hour), false, now), berth.CheckOK, "until 2026-03-21 10:00Z", "20 days")
	holds(t, credentialsRow(token(15*time.Minute), false, now), berth.CheckWarning, "2026-03-01 10:15Z", "15 minutes")
	holds(t, credentialsRow(token(15*time.Minute), true, now), berth.CheckOK, "renewed by itself")
	holds(t, credentialsRow(&rest.Config{BearerToken: "opaque"}, false, now), berth.CheckOK, "says no end")
	holds(t, credentialsRow(&rest.Config{ExecProvider: &api.ExecConfig{Command: "gke-gcloud-auth-plugin"}}, false, now), berth.CheckOK, "gke-gcloud-auth-plugin")
}

func TestQuotasAreToldWithWhatIsLeft(t *testing.T) {
	rows := quotaRows(&corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "team"}, Spec: corev1.ResourceQuotaSpec{Hard: list("limits.cpu", "4", "pods", "2")},
		Status: corev1.ResourceQuotaStatus{Used: list("limits.cpu", "1500m", "pods", "2")},
	})
	if len(rows) != 2 || rows[0].What != "quota team: limits.cpu" {
		t.Fatalf("%+v", rows)
	}
	holds(t, rows[0], berth.CheckOK, "1500m of 4 in use (38%), 2500m left")
	holds(t, rows[1], berth.CheckWarning, "2 of 2 in use (100%): tasks wait")
}

func TestLimitRangesAreToldInWords(t *testing.T) {
	rows := rangeRows(&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypeContainer, Max: list("cpu", "2"), Min: list("cpu", "10m", "memory", "8Mi"), Default: list("cpu", "500m"), DefaultRequest: list("cpu", "100m")},
		{Type: corev1.LimitTypePersistentVolumeClaim, Max: list("storage", "1Gi")},
	}}})
	if len(rows) != 2 || rows[0].What != "LimitRange small: cpu of a container" || rows[1].What != "LimitRange small: memory of a container" {
		t.Fatalf("%+v", rows)
	}
	holds(t, rows[0], berth.CheckOK, "at most 2, at least 10m, limit if none is given 500m, request if none is given 100m")
	holds(t, rows[1], berth.CheckOK, "at least 8Mi")
}
