package kube

import (
	"context"
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// checkImage is the image of the pods that are tried by dry runs. None is pulled.
const checkImage = "docker.io/library/busybox:1.35"

// checkPod asks, by dry runs, whether the namespace would take the pod of a
// plain task, and which security level it holds pods to.
func (d *Driver) checkPod(ctx context.Context) []berth.CheckRow {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	id := xid.New().String()
	order := engine.Order{
		Instance: d.instance, TaskID: id, Attempt: 1, Pod: berth.PodName(id, 1, 0),
		Proxy: &engine.Proxy{Image: checkImage},
		Spec:  berth.TaskSpec{Image: checkImage, CPU: d.config.Defaults.CPU, Memory: d.config.Defaults.Memory},
	}
	return []berth.CheckRow{d.checkPlain(ctx, order), d.checkSecurity(ctx, order)}
}

// checkPlain tries the pod of a task that asks for nothing but the defaults.
func (d *Driver) checkPlain(ctx context.Context, order engine.Order) berth.CheckRow {
	row := berth.CheckRow{What: "a task's pod", Status: berth.CheckOK, Detail: "would be accepted"}
	_, err := d.createPod(ctx, order, true)
	var refusal *engine.Refusal
	switch {
	case err == nil:
		return row
	case strings.Contains(err.Error(), noDryRun), !errors.As(err, &refusal), refusal.Diagnosis == nil:
		row.Status, row.Detail = berth.CheckWarning, "can't be tried: "+err.Error()
		return row
	}
	row.Status = berth.CheckFailed
	switch refusal.Diagnosis.Cause {
	case berth.CauseQuotaExceeded, berth.CauseLimitRangeViolated:
		row.Status = berth.CheckWarning // a task that asks for something else may be accepted
	default:
		if !refusal.Hopeless {
			row.Status = berth.CheckWarning
		}
	}
	row.Detail, row.Remedy = refusal.Diagnosis.Summary, refusal.Diagnosis.Remedy.Text
	return row
}

// checkSecurity tries a pod that only the laxest level allows: a refusal names
// the level.
func (d *Driver) checkSecurity(ctx context.Context, order engine.Order) berth.CheckRow {
	row := berth.CheckRow{What: "Pod Security", Status: berth.CheckOK}
	pod, err := renderPod(order, d.config, d.nonRoot.Load())
	if err != nil {
		row.Status, row.Detail = berth.CheckWarning, "can't be tried: "+err.Error()
		return row
	}
	pod.Spec.HostNetwork = true
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr(true)}
	_, err = d.client.Clientset.CoreV1().Pods(d.client.Namespace).Create(ctx, pod, createOptions(true))
	level := diagnosis.PodSecurityLevel(err)
	switch {
	case err == nil:
		row.Detail = "privileged: nothing is forbidden. Tasks need less; a namespace that is handed out is safer with restricted or baseline"
	case level == "restricted":
		row.Detail = "restricted: tasks run with runAsNonRoot. An image that runs as root needs --user UID"
	case level != "":
		row.Detail = level + ": privileged pods are forbidden"
	default:
		refusal := d.refuse(err, "create", "pods", order)
		row.Status, row.Detail = berth.CheckWarning, "not found out: "+err.Error()
		if refusal.Diagnosis != nil && refusal.Diagnosis.Cause == berth.CauseAdmissionDenied && refusal.Hopeless {
			row.Status, row.Detail = berth.CheckOK, "privileged pods are forbidden. "+refusal.Diagnosis.Summary
		} else if refusal.Diagnosis != nil {
			row.Detail = "not found out: " + refusal.Diagnosis.Summary
		}
	}
	return row
}
