package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

// oldestMinor is the oldest Kubernetes 1.x that Berth works with: native
// sidecars are on by default from 1.29 on.
const oldestMinor = 29

// checkTimeout bounds a whole check.
const checkTimeout = 30 * time.Second

var versionPattern = regexp.MustCompile(`^v?(\d+)\.(\d+)`)

// CheckVersion refuses an API server that is too old, by name.
func CheckVersion(version string) error {
	m := versionPattern.FindStringSubmatch(version)
	if m == nil {
		return nil // an API server that hides its version may well be new
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < 1 || (major == 1 && minor < oldestMinor) {
		return berth.Errorf(berth.CodeUnsupported, "Kubernetes %s is too old: Berth needs 1.%d or newer", version, oldestMinor)
	}
	return nil
}

// Version asks the API server for its version, such as v1.34.4. The error
// is client-go's own (whose ServerVersion takes no context).
func (c *Client) Version(ctx context.Context) (string, error) {
	body, err := c.Clientset.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var info version.Info
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("the answer about its version is not that of a Kubernetes API server: %w", err)
	}
	return info.GitVersion, nil
}

// Check connects, and compares what is granted with what is needed, row by row.
// The error, CodeUnavailable or CodeUnauthorized, is for a cluster that does
// not answer, or not to us; everything else is a row.
func (c *Client) Check(ctx context.Context) (berth.InfrastructureCheck, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	check := berth.InfrastructureCheck{Name: c.Name, Namespace: c.Namespace, Address: c.Server, OK: true}
	serverVersion, err := c.Version(ctx) // opens the connection
	if err != nil {
		return check, c.unreachable(err)
	}
	check.ServerVersion = serverVersion
	row := berth.CheckRow{What: "server version", Status: berth.CheckOK, Detail: serverVersion}
	if err := CheckVersion(serverVersion); err != nil {
		row.Status, row.Detail, row.Remedy = berth.CheckFailed, err.Error(), "use a cluster with a newer Kubernetes"
	}
	namespace, latency := c.checkNamespace(ctx)
	check.Latency = latency
	check.Add(berth.CheckCluster, row, checkLatency(latency), c.checkClock(ctx), c.checkCredentials(ctx))
	for _, warning := range c.Warnings {
		check.Add(berth.CheckCluster, berth.CheckRow{What: "infra.yml", Status: berth.CheckWarning, Detail: warning})
	}
	check.Add(berth.CheckNamespace, namespace)

	rows, err := c.checkPermissions(ctx)
	if err != nil {
		return check, c.unreachable(err)
	}
	check.Add("", rows...)
	check.Add(berth.CheckNamespace, c.checkLimits(ctx)...)
	check.Add(berth.CheckNamespace, c.checkMetrics(ctx)...)
	return check, nil
}

// slow is how long a call may take before tasks are noticeably slower for it.
const slow = 500 * time.Millisecond

func checkLatency(latency time.Duration) berth.CheckRow {
	row := berth.CheckRow{What: "latency", Status: berth.CheckOK, Detail: latency.Round(100*time.Microsecond).String() + " for one call"}
	if latency > slow {
		row.Status = berth.CheckWarning
		row.Detail += ": each task takes several calls, so it begins and ends later"
		row.Remedy = "run Berth nearer to the cluster, or have the load of its API server looked at"
	}
	return row
}

// checkNamespace looks at the namespace, and how long one call takes.
func (c *Client) checkNamespace(ctx context.Context) (berth.CheckRow, time.Duration) {
	row := berth.CheckRow{What: "namespace " + c.Namespace, Status: berth.CheckOK}
	start := time.Now()
	namespace, err := c.Clientset.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
	latency := time.Since(start)
	switch {
	case apierrors.IsNotFound(err):
		row.Status, row.Detail = berth.CheckFailed, "does not exist"
		row.Remedy = fmt.Sprintf("correct the namespace in infra.yml, or make it with berth create-kubeconfig -n %s", c.Namespace)
	case apierrors.IsForbidden(err):
		row.Status, row.Detail = berth.CheckWarning, "may not be looked at: it does not exist, or this is not granted"
		row.Remedy = remedyFor(permissions.Tasks, c.Namespace)
	case err != nil:
		row.Status, row.Detail = berth.CheckFailed, err.Error()
		row.Remedy = "try again"
	case namespace.Status.Phase == corev1.NamespaceTerminating:
		row.Status, row.Detail = berth.CheckFailed, "is being deleted"
		row.Remedy = "wait until it is gone, and make it again, or use another"
	default:
		row.Detail = "exists"
	}
	return row, latency
}

// unreachable tells a person why there was no answer.
func (c *Client) unreachable(err error) error {
	var dns *net.DNSError
	switch {
	case apierrors.IsUnauthorized(err):
		return berth.Errorf(berth.CodeUnauthorized, "infrastructure %s: %s does not accept the credentials (401); they have expired or were withdrawn: get a new kubeconfig from the cluster's engineer, or make one with berth create-kubeconfig: %w", c.Name, c.Server, err)
	case apierrors.IsForbidden(err):
		return berth.Errorf(berth.CodeForbidden, "infrastructure %s: %s knows the credentials but refuses this: %w", c.Name, c.Server, err)
	case errors.As(err, &dns):
		return berth.Errorf(berth.CodeUnavailable, "infrastructure %s: the name of its server %s can't be resolved; correct the server in the kubeconfig, or try again: %w", c.Name, c.Server, err)
	}
	return berth.Errorf(berth.CodeUnavailable, "infrastructure %s: its server %s can't be reached; is the address in the kubeconfig right, and does it answer from this machine? %w", c.Name, c.Server, err)
}
