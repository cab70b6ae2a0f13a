package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
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
	add := func(rows ...berth.CheckRow) {
		for _, row := range rows {
			check.OK = check.OK && row.Status != berth.CheckFailed && row.Status != berth.CheckMissing
			check.Rows = append(check.Rows, row)
		}
	}
	serverVersion, err := c.Version(ctx) // opens the connection
	if err != nil {
		return check, c.unreachable(err)
	}
	check.ServerVersion = serverVersion
	row := berth.CheckRow{What: "server version", Status: berth.CheckOK, Detail: serverVersion}
	if err := CheckVersion(serverVersion); err != nil {
		row.Status, row.Detail, row.Remedy = berth.CheckFailed, err.Error(), "use a cluster with a newer Kubernetes"
	}
	add(row)

	namespace, latency := c.checkNamespace(ctx)
	check.Latency = latency
	add(berth.CheckRow{What: "latency", Status: berth.CheckOK, Detail: latency.Round(100 * time.Microsecond).String()})
	add(namespace)

	rows, err := c.checkPermissions(ctx)
	if err != nil {
		return check, c.unreachable(err)
	}
	add(rows...)
	for _, warning := range c.Warnings {
		add(berth.CheckRow{What: "infra.yml", Status: berth.CheckWarning, Detail: warning})
	}
	return check, nil
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

// checkPermissions asks the API server about each verb. Of profiles that
// nothing was granted of, nothing is said: nobody asked for them.
func (c *Client) checkPermissions(ctx context.Context) ([]berth.CheckRow, error) {
	granted := make([]bool, len(permissions.All))
	errs := make([]error, len(permissions.All))
	account := permissions.Account
	if held, ok := c.claims(); ok {
		account = held.account
	}
	var wg sync.WaitGroup
	for i, p := range permissions.All {
		wg.Go(func() { granted[i], errs[i] = c.allowed(ctx, p, c.Namespace, account) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	wanted := map[permissions.Profile]bool{permissions.Tasks: true}
	for i, p := range permissions.All {
		wanted[p.Profile] = wanted[p.Profile] || granted[i] && permissions.Only(p)
	}
	var rows []berth.CheckRow
	seen := map[string]bool{}
	for i, p := range permissions.All {
		if !wanted[p.Profile] || seen[p.String()] {
			continue
		}
		seen[p.String()] = true
		row := berth.CheckRow{What: p.String(), Status: berth.CheckOK, Detail: p.For}
		if !granted[i] {
			row.Status, row.Remedy = berth.CheckWarning, remedyFor(p.Profile, c.Namespace)
			if p.Required && p.Profile == permissions.Tasks {
				row.Status = berth.CheckMissing
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// allowed asks whether a verb is granted to an account, which is our own, in a
// namespace. Asking needs no grant itself.
func (c *Client) allowed(ctx context.Context, p permissions.Permission, namespace, account string) (bool, error) {
	attributes := authorizationv1.ResourceAttributes{
		Namespace: namespace, Verb: p.Verb, Group: p.Group, Resource: p.Resource, Subresource: p.Subresource,
	}
	attributes.Name = p.ObjectName(namespace, account)
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes}}
	review, err := c.Clientset.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func remedyFor(profile permissions.Profile, namespace string) string {
	flag := ""
	if profile != permissions.Tasks {
		flag = " --profile " + string(profile)
	}
	return fmt.Sprintf("ask the cluster's engineer to grant it: berth create-kubeconfig -n %s%s does", namespace, flag)
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
