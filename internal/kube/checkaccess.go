package kube

import (
	"context"
	"fmt"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

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
		row := berth.CheckRow{Group: berth.CheckProfile(string(p.Profile)), What: p.String(), Status: berth.CheckOK, Detail: p.For}
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
