package kube

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/permissions"
)

// allowance is what the quotas and LimitRanges of a namespace allow one pod, as
// far as they may be seen.
type allowance struct {
	quotas []corev1.ResourceQuota
	ranges []corev1.LimitRange

	quotasSeen, rangesSeen bool
}

// allowance reads what is granted to be read. What isn't granted is not asked for.
func (c *Client) allowance(ctx context.Context) *allowance {
	a := &allowance{}
	if c.may(ctx, "list", "resourcequotas") {
		if list, err := c.Clientset.CoreV1().ResourceQuotas(c.Namespace).List(ctx, metav1.ListOptions{}); err == nil {
			a.quotas, a.quotasSeen = list.Items, true
		}
	}
	if c.may(ctx, "list", "limitranges") {
		if list, err := c.Clientset.CoreV1().LimitRanges(c.Namespace).List(ctx, metav1.ListOptions{}); err == nil {
			a.ranges, a.rangesSeen = list.Items, true
		}
	}
	return a
}

// may reports whether a verb of the table is granted; false when that can't be
// found out.
func (c *Client) may(ctx context.Context, verb, resource string) bool {
	p, known := permissions.Find(verb, "", resource, "")
	if !known {
		return false
	}
	granted, err := c.allowed(ctx, p, c.Namespace, permissions.Account)
	return err == nil && granted
}

// breaches are the limits that a pod breaks by itself, whatever else is there.
func (a *allowance) breaches(pod *corev1.Pod) []diagnosis.Breach {
	pod = a.defaulted(pod)
	var found []diagnosis.Breach
	for i := range a.ranges {
		for j := range a.ranges[i].Spec.Limits {
			found = append(found, rangeBreaches(a.ranges[i].Name, &a.ranges[i].Spec.Limits[j], pod)...)
		}
	}
	for i := range a.quotas {
		found = append(found, quotaBreaches(&a.quotas[i], pod)...)
	}
	return found
}

// defaulted is the pod with what the namespace's LimitRanges give where a
// container says nothing. A limit alone is the request too.
func (a *allowance) defaulted(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			r := &containers[i].Resources
			if r.Requests == nil {
				r.Requests = corev1.ResourceList{}
			}
			if r.Limits == nil {
				r.Limits = corev1.ResourceList{}
			}
			fill(r.Requests, r.Limits)
			for j := range a.ranges {
				for _, item := range a.ranges[j].Spec.Limits {
					if item.Type == corev1.LimitTypeContainer {
						fill(r.Requests, item.DefaultRequest)
						fill(r.Limits, item.Default)
					}
				}
			}
		}
	}
	return pod
}

// fill adds what is not there.
func fill(list, defaults corev1.ResourceList) {
	for name, q := range defaults {
		if _, said := list[name]; !said {
			list[name] = q
		}
	}
}

func rangeBreaches(name string, item *corev1.LimitRangeItem, pod *corev1.Pod) []diagnosis.Breach {
	var subjects []corev1.ResourceRequirements
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			subjects = append(subjects, c.Resources)
		}
	case corev1.LimitTypePod:
		subjects = []corev1.ResourceRequirements{{Requests: total(pod, requested), Limits: total(pod, limited)}}
	}
	var found []diagnosis.Breach
	for _, s := range subjects {
		for _, resource := range sortedNames(item.Max) {
			if asked, said := s.Limits[resource]; said && asked.Cmp(item.Max[resource]) > 0 {
				found = append(found, breach(diagnosis.BreachMax, name, resource, asked, item.Max[resource]))
			}
		}
		for _, resource := range sortedNames(item.Min) {
			if asked, said := s.Requests[resource]; said && asked.Cmp(item.Min[resource]) < 0 {
				found = append(found, breach(diagnosis.BreachMin, name, resource, asked, item.Min[resource]))
			}
		}
	}
	return slices.Compact(found)
}

// hasToBeSaid are the resources that every container has to state where a
// quota counts them.
var hasToBeSaid = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
}

func quotaBreaches(quota *corev1.ResourceQuota, pod *corev1.Pod) []diagnosis.Breach {
	if !counts(quota, pod) {
		return nil
	}
	var found []diagnosis.Breach
	usage := usageOf(pod)
	for _, name := range sortedNames(quota.Spec.Hard) {
		hard := quota.Spec.Hard[name]
		asked, said := usage[name]
		switch {
		case said && asked.Cmp(hard) > 0:
			found = append(found, breach(diagnosis.BreachQuota, quota.Name, name, asked, hard))
		case !said && slices.Contains(hasToBeSaid, name):
			found = append(found, breach(diagnosis.BreachUnsaid, quota.Name, name, resource.Quantity{}, hard))
		}
	}
	return found
}

// counts reports whether a quota counts a pod. Of one whose scopes are not
// known here that is not said.
func counts(quota *corev1.ResourceQuota, pod *corev1.Pod) bool {
	if quota.Spec.ScopeSelector != nil {
		return false
	}
	bestEffort := len(total(pod, requested))+len(total(pod, limited)) == 0
	for _, scope := range quota.Spec.Scopes {
		applies := false
		switch scope {
		case corev1.ResourceQuotaScopeTerminating:
			applies = pod.Spec.ActiveDeadlineSeconds != nil
		case corev1.ResourceQuotaScopeNotTerminating:
			applies = pod.Spec.ActiveDeadlineSeconds == nil
		case corev1.ResourceQuotaScopeBestEffort:
			applies = bestEffort
		case corev1.ResourceQuotaScopeNotBestEffort:
			applies = !bestEffort
		}
		if !applies {
			return false
		}
	}
	return true
}

// usageOf is what quotas count of a pod.
func usageOf(pod *corev1.Pod) corev1.ResourceList {
	usage := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1"), "count/pods": resource.MustParse("1")}
	for name, q := range total(pod, requested) {
		usage["requests."+name] = q
		if !strings.Contains(string(name), "/") {
			usage[name] = q
		}
	}
	for name, q := range total(pod, limited) {
		usage["limits."+name] = q
	}
	return usage
}

func requested(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests }
func limited(c *corev1.Container) corev1.ResourceList   { return c.Resources.Limits }

// total is what a pod needs at once: its init containers run before the others.
func total(pod *corev1.Pod, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for i := range pod.Spec.Containers {
		for name, q := range of(&pod.Spec.Containers[i]) {
			all := sum[name]
			all.Add(q)
			sum[name] = all
		}
	}
	for i := range pod.Spec.InitContainers {
		for name, q := range of(&pod.Spec.InitContainers[i]) {
			if most := sum[name]; q.Cmp(most) > 0 {
				sum[name] = q
			}
		}
	}
	return sum
}

func breach(kind diagnosis.BreachKind, rule string, name corev1.ResourceName, asked, bound resource.Quantity) diagnosis.Breach {
	return diagnosis.Breach{Kind: kind, Rule: rule, Resource: string(name), Asked: asked.String(), Bound: bound.String()}
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
