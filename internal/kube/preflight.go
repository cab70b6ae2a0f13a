package kube

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// preflightSlots bounds the dry runs at a time: creates go before them.
const preflightSlots = 8

// noDryRun is how the API server says that an admission webhook has side
// effects, so that a dry run can't be asked of it.
const noDryRun = "does not support dry run"

// Preflight asks the API server, by a create that is a dry run, whether it would
// take the pod of an attempt. One that it would is remembered for a while, by
// its shape; a refusal never is, as what it objects to may be mended by now.
func (d *Driver) Preflight(ctx context.Context, order engine.Order) error {
	pod, err := renderPod(order, d.config, d.nonRoot.Load())
	if err != nil {
		return nil //nolint:nilerr // the create says it again
	}
	if err := d.maySecret(ctx, order); err != nil {
		return err
	}
	shape := shapeOf(pod)
	if d.passes.valid(shape) {
		return nil
	}
	select {
	case d.preflights <- struct{}{}:
		defer func() { <-d.preflights }()
	case <-ctx.Done():
		return nil
	}
	if d.passes.valid(shape) { // somebody else asked meanwhile
		return nil
	}
	_, err = d.createPod(ctx, order, true)
	var refusal *engine.Refusal
	switch {
	case err == nil:
		d.passes.add(shape)
		return nil
	case !errors.As(err, &refusal):
		return err
	}
	switch refusal.Kind {
	case engine.RefusedUnreachable, engine.RefusedUnauthorized, engine.RefusedForbidden:
		return refusal
	case engine.RefusedQuota:
		if !refusal.Hopeless {
			d.passes.add(shape) // it waits for room
			return refusal
		}
	}
	breaches := d.client.allowance(ctx).breaches(pod)
	decided := refusal.Err == nil || !strings.Contains(refusal.Err.Error(), noDryRun)
	if refusal.Hopeless && decided {
		return detailed(refusal, breaches)
	}
	// The API server can't decide, or not now. What the pod asks for may be too
	// much all the same.
	if f := diagnosis.Breaches(breaches, d.about(order), time.Now()); f != nil {
		return &engine.Refusal{Kind: engine.RefusedPermanent, Diagnosis: &f.Diagnosis, Hopeless: true, Err: refusal.Err}
	}
	d.passes.add(shape)
	if !decided {
		return nil
	}
	return refusal
}

// detailed adds to a refusal all that comparing the pod with the limits of its
// namespace shows.
func detailed(refusal *engine.Refusal, breaches []diagnosis.Breach) *engine.Refusal {
	if refusal.Diagnosis != nil {
		f := &diagnosis.Finding{Diagnosis: *refusal.Diagnosis}
		f.Detail(breaches)
		refusal.Diagnosis = &f.Diagnosis
	}
	return refusal
}

// shapeOf tells pods apart by what clusters decide about: all but names,
// labels, arguments and the values of variables.
func shapeOf(pod *corev1.Pod) [sha256.Size]byte {
	shape := pod.DeepCopy()
	shape.ObjectMeta = metav1.ObjectMeta{}
	for _, containers := range [][]corev1.Container{shape.Spec.InitContainers, shape.Spec.Containers} {
		for i := range containers {
			containers[i].Command, containers[i].Args, containers[i].Env = nil, nil, nil
		}
	}
	data, err := shape.Marshal()
	if err != nil {
		return sha256.Sum256([]byte(pod.Name)) // a shape of its own
	}
	return sha256.Sum256(data)
}
