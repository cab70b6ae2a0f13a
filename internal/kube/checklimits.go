package kube

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth"
)

// checkLimits tells what is left of the namespace's quotas, and what its
// LimitRanges allow, as far as they may be seen.
func (c *Client) checkLimits(ctx context.Context) []berth.CheckRow {
	a := c.allowance(ctx)
	var rows []berth.CheckRow
	if a.quotasSeen && len(a.quotas) == 0 {
		rows = append(rows, berth.CheckRow{What: "quota", Status: berth.CheckOK, Detail: "none: the cluster's size is the limit"})
	}
	for i := range a.quotas {
		rows = append(rows, quotaRows(&a.quotas[i])...)
	}
	if a.rangesSeen && len(a.ranges) == 0 {
		rows = append(rows, berth.CheckRow{What: "LimitRange", Status: berth.CheckOK, Detail: "none: a task may be of any size, and has no defaults but those of infra.yml"})
	}
	for i := range a.ranges {
		rows = append(rows, rangeRows(&a.ranges[i])...)
	}
	return rows
}

// quotaRows has one row a resource: used, in all, and what is left.
func quotaRows(quota *corev1.ResourceQuota) []berth.CheckRow {
	var rows []berth.CheckRow
	for _, name := range sortedNames(quota.Spec.Hard) {
		hard, used := quota.Spec.Hard[name], quota.Status.Used[name]
		row := berth.CheckRow{What: "quota " + quota.Name + ": " + string(name), Status: berth.CheckOK}
		left := hard.DeepCopy()
		left.Sub(used)
		row.Detail = fmt.Sprintf("%s of %s in use%s, %s left", used.String(), hard.String(), percent(used, hard), left.String())
		if left.Sign() <= 0 {
			row.Status = berth.CheckWarning
			row.Detail = fmt.Sprintf("%s of %s in use%s: tasks wait until something ends", used.String(), hard.String(), percent(used, hard))
			row.Remedy = "wait, or ask the cluster's engineer for more " + string(name)
		}
		rows = append(rows, row)
	}
	return rows
}

func percent(used, hard resource.Quantity) string {
	if hard.Sign() <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%.0f%%)", 100*used.AsApproximateFloat64()/hard.AsApproximateFloat64())
}

// rangeRows has one row for what is bounded, and a resource of it.
func rangeRows(limits *corev1.LimitRange) []berth.CheckRow {
	var rows []berth.CheckRow
	for i := range limits.Spec.Limits {
		item := &limits.Spec.Limits[i]
		if item.Type != corev1.LimitTypeContainer && item.Type != corev1.LimitTypePod {
			continue // volumes, which tasks don't have
		}
		all := corev1.ResourceList{}
		bounds := []struct {
			what string
			list corev1.ResourceList
		}{{"at most", item.Max}, {"at least", item.Min}, {"limit if none is given", item.Default}, {"request if none is given", item.DefaultRequest}}
		for _, bound := range bounds {
			fill(all, bound.list)
		}
		for _, name := range sortedNames(all) {
			var parts []string
			for _, bound := range bounds {
				if q, said := bound.list[name]; said {
					parts = append(parts, bound.what+" "+q.String())
				}
			}
			what := fmt.Sprintf("LimitRange %s: %s of a %s", limits.Name, name, strings.ToLower(string(item.Type)))
			rows = append(rows, berth.CheckRow{What: what, Status: berth.CheckOK, Detail: strings.Join(parts, ", ")})
		}
	}
	return rows
}
