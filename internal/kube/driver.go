package kube

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/crash"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// callTimeout bounds a single call; what it does may have been done all the same.
const callTimeout = 30 * time.Second

// Driver runs attempts as bare pods in one namespace. It implements engine.Driver.
type Driver struct {
	client   *Client
	config   berth.InfrastructureConfig
	instance string
	events   *podEvents
	reports  *reports
	words    *proxyWords
	pull     pullSecret
	nonRoot  atomic.Bool // the namespace was found to want it
	secrets  atomic.Bool // pods were found to be allowed Secrets of their own
	metered  atomic.Bool // what pods use was found to be granted

	passes     *passes       // of preflights
	preflights chan struct{} // slots for them
}

var _ engine.Driver = (*Driver)(nil)

// NewDriver returns a driver for what a store's instance runs through a client.
func NewDriver(client *Client, config berth.InfrastructureConfig, instance string) *Driver {
	d := &Driver{client: client, config: config, instance: instance, reports: newReports(), words: newProxyWords(), passes: newPasses(), preflights: make(chan struct{}, preflightSlots)}
	d.events = newPodEvents(d)
	return d
}

// Server returns the address of the API server.
func (d *Driver) Server() string { return d.client.Server }

// Version returns the version of the API server, such as v1.34.4.
func (d *Driver) Version(ctx context.Context) (string, error) {
	v, err := d.client.Version(ctx)
	if err != nil {
		return "", d.refusal(err, "get", "version", "")
	}
	return v, nil
}

// Check compares what is granted with what is needed.
func (d *Driver) Check(ctx context.Context) (berth.InfrastructureCheck, error) {
	check, err := d.client.Check(ctx)
	if err == nil && check.OK {
		check.Add(berth.CheckNamespace, d.checkPod(ctx)...)
		check.Add(berth.CheckNamespace, d.checkProxy(ctx)...)
	}
	return check, err
}

// Identity returns the UID of the namespace. Where it may not be read, but
// pods may be, the cluster at least answered, and that is all that is known of it.
func (d *Driver) Identity(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ns, err := d.client.Clientset.CoreV1().Namespaces().Get(ctx, d.client.Namespace, metav1.GetOptions{})
	if apierrors.IsForbidden(err) {
		return "", d.answers(ctx)
	}
	if err != nil {
		return "", d.refusal(err, "get", "namespaces", "")
	}
	return string(ns.UID), nil
}

// answers reports whether anything at all is granted in a namespace that may
// not be looked at: where nothing is, its name is likely to be wrong, or the
// kubeconfig another's.
func (d *Driver) answers(ctx context.Context) error {
	_, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err == nil {
		return nil
	}
	refusal := d.refusal(err, "list", "pods", "")
	if refusal.Kind == engine.RefusedForbidden && refusal.Diagnosis != nil {
		remedy := &refusal.Diagnosis.Remedy
		remedy.Text = "check that namespace " + d.client.Namespace + " of infrastructure " + d.config.Name + " in infra.yml exists and is the one that the kubeconfig is for; if so, " + remedy.Text
	}
	return refusal
}

// Create makes the pod of an attempt, and the Secret that it waits for where it
// has secret inputs.
func (d *Driver) Create(ctx context.Context, order engine.Order) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := d.ensurePullSecret(ctx, order); err != nil {
		return "", err
	}
	if err := d.maySecret(ctx, order); err != nil {
		return "", err
	}
	uid, err := d.createPod(ctx, order, false)
	if err != nil {
		return "", err
	}
	crash.Point("kube.pod-made")
	if err := d.ensureSecret(ctx, order, uid); err != nil {
		// Without it the pod can't start: better none, and the reason.
		if _, gone := d.Delete(context.WithoutCancel(ctx), order.Pod, uid, 0); gone != nil {
			return uid, nil //nolint:nilerr // it exists, and says itself what it lacks
		}
		return "", err
	}
	return uid, nil
}

// createPod makes the pod of an attempt. A namespace that wants Pod Security
// "restricted" says so by refusing; the pod is then made as it wants. A dry run
// finds that out too, and makes nothing.
func (d *Driver) createPod(ctx context.Context, order engine.Order, dryRun bool) (string, error) {
	nonRoot := d.nonRoot.Load()
	uid, err := d.create(ctx, order, nonRoot, dryRun)
	if err == nil {
		return uid, nil
	}
	refusal := d.refuse(err, "create", "pods", order)
	if !nonRoot && d.wantsNonRoot(refusal) {
		if uid, again := d.create(ctx, order, true, dryRun); again == nil || !d.wantsNonRoot(d.refuse(again, "create", "pods", order)) {
			d.nonRoot.Store(true)
			if again == nil {
				return uid, nil
			}
			return "", d.refuse(again, "create", "pods", order)
		}
	}
	return "", refusal
}

// wantsNonRoot reports whether a refusal is that of a namespace with Pod
// Security "restricted", of a pod that may run as root.
func (d *Driver) wantsNonRoot(r *engine.Refusal) bool {
	return d.config.Pod.Security == "" && r.Diagnosis != nil && r.Diagnosis.Cause == berth.CausePodSecurityViolated
}

func (d *Driver) create(ctx context.Context, order engine.Order, nonRoot, dryRun bool) (string, error) {
	wanted, err := renderPod(order, d.config, nonRoot)
	if err != nil {
		return "", err
	}
	pod, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).Create(ctx, wanted, createOptions(dryRun))
	if err != nil {
		return "", err
	}
	return string(pod.UID), nil
}

func createOptions(dryRun bool) metav1.CreateOptions {
	if dryRun {
		return metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	}
	return metav1.CreateOptions{}
}

// Find looks for the pod of an attempt, and whether it is ours.
func (d *Driver) Find(ctx context.Context, order engine.Order) (string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pod, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).Get(ctx, order.Pod, metav1.GetOptions{})
	if err != nil {
		return "", false, d.refuse(err, "get", "pods", order)
	}
	ours := pod.Labels[berth.LabelInstance] == order.Instance && pod.Labels[berth.LabelTask] == order.TaskID
	if ours && pod.DeletionTimestamp == nil {
		// Whoever created it may have ended before its Secret was there.
		if err := d.ensureSecret(ctx, order, string(pod.UID)); err != nil {
			return "", false, err
		}
	}
	return string(pod.UID), ours, nil
}

// Vouch asks the namespace's events: whatever was scheduled, or failed to be,
// left one, for an hour by default.
func (d *Driver) Vouch(ctx context.Context, pod string, since time.Time) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := d.client.Clientset.CoreV1().Events(d.client.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod, Limit: 1})
	if err != nil {
		return false, d.refusal(err, "list", "events", pod)
	}
	if len(list.Items) > 0 {
		return true, nil
	}
	if crash.Now().Sub(since) > 50*time.Minute {
		return false, &engine.Refusal{Kind: engine.RefusedUnknown, Err: context.DeadlineExceeded}
	}
	return false, nil
}

// Delete deletes the pod with that UID, and no other of its name.
func (d *Driver) Delete(ctx context.Context, pod, uid string, grace time.Duration) (engine.Deletion, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr(types.UID(uid))}}
	if grace >= 0 {
		options.GracePeriodSeconds = ptr(int64(grace / time.Second))
	}
	var deleted corev1.Pod
	err := d.client.Clientset.CoreV1().RESTClient().Delete().Namespace(d.client.Namespace).Resource("pods").Name(pod).Body(&options).Do(ctx).Into(&deleted)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // conflict: a pod of that name, but another
		return engine.DeletionGone, nil
	}
	if err != nil {
		return engine.DeletionGoing, d.refusal(err, "delete", "pods", pod)
	}
	if deleted.DeletionGracePeriodSeconds == nil || *deleted.DeletionGracePeriodSeconds == 0 {
		return engine.DeletionGone, nil
	}
	return engine.DeletionGoing, nil
}

// Logs opens the log of the main container. The API counts in seconds, so
// lines of the second before may come again.
func (d *Driver) Logs(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error) {
	options := &corev1.PodLogOptions{Container: MainContainer, Follow: follow, Timestamps: true}
	if !since.IsZero() {
		options.SinceTime = &metav1.Time{Time: since.Truncate(time.Second)}
	}
	stream, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).GetLogs(pod, options).Stream(ctx)
	if err != nil {
		return nil, d.refusal(err, "get", "pods/log", pod)
	}
	return stream, nil
}

// WatchQuota calls changed when a quota of the namespace changes.
func (d *Driver) WatchQuota(ctx context.Context, changed func()) error {
	api := d.client.Clientset.CoreV1().ResourceQuotas(d.client.Namespace)
	for ctx.Err() == nil {
		list, err := api.List(ctx, metav1.ListOptions{})
		if apierrors.IsForbidden(err) {
			return d.refusal(err, "list", "resourcequotas", "")
		}
		if err == nil {
			changed()
			err = d.watchQuotaFrom(ctx, list.ResourceVersion, changed)
			if apierrors.IsForbidden(err) {
				return d.refusal(err, "watch", "resourcequotas", "")
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

func (d *Driver) watchQuotaFrom(ctx context.Context, version string, changed func()) error {
	watcher, err := d.client.Clientset.CoreV1().ResourceQuotas(d.client.Namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		if event.Type == watch.Error {
			return apierrors.FromObject(event.Object)
		}
		changed()
	}
	return nil
}

// subject names what diagnoses speak of.
func (d *Driver) subject(pod *corev1.Pod) diagnosis.Subject {
	s := diagnosis.Subject{Infrastructure: d.config.Name, Namespace: d.client.Namespace, Server: d.client.Server, Pod: pod.Name, ServiceAccount: pod.Spec.ServiceAccountName}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if c.Name != MainContainer {
			continue
		}
		s.Image, s.Command = c.Image, written(append(append([]string{}, c.Command...), c.Args...))
		if q, ok := c.Resources.Requests[corev1.ResourceCPU]; ok {
			s.CPU = berth.Quantity(q.String())
		}
		if q, ok := c.Resources.Requests[corev1.ResourceMemory]; ok {
			s.Memory = berth.Quantity(q.String())
		}
	}
	return s
}

// refuse classifies an API error about an attempt's pod.
func (d *Driver) refuse(err error, verb, resource string, order engine.Order) *engine.Refusal {
	return d.classify(err, verb, resource, d.about(order))
}

// about names an attempt's pod.
func (d *Driver) about(order engine.Order) diagnosis.Subject {
	return diagnosis.Subject{
		Infrastructure: d.config.Name, Namespace: d.client.Namespace, Server: d.client.Server, Pod: order.Pod, Image: order.Spec.Image, CPU: order.Spec.CPU, Memory: order.Spec.Memory,
		Command: append(append([]string{}, order.Spec.Entrypoint...), order.Spec.Args...), ServiceAccount: d.config.Pod.ServiceAccount,
	}
}

// refusal classifies an API error.
func (d *Driver) refusal(err error, verb, resource, pod string) *engine.Refusal {
	return d.classify(err, verb, resource, diagnosis.Subject{Pod: pod})
}

func (d *Driver) classify(err error, verb, resource string, s diagnosis.Subject) *engine.Refusal {
	s.Infrastructure, s.Namespace, s.Server = d.config.Name, d.client.Namespace, d.client.Server
	f := diagnosis.Error(err, verb, resource, s, time.Now())
	r := &engine.Refusal{Err: err, Kind: engine.RefusedUnknown}
	if f == nil {
		return r
	}
	r.Diagnosis, r.Patience, r.Hopeless = &f.Diagnosis, f.Patience, f.Hopeless
	kinds := map[diagnosis.Retry]engine.Refused{
		diagnosis.RetryNone: engine.RefusedPermanent, diagnosis.RetryExists: engine.RefusedExists, diagnosis.RetryNotFound: engine.RefusedNotFound,
		diagnosis.RetryQuota: engine.RefusedQuota, diagnosis.RetryTransient: engine.RefusedTransient, diagnosis.RetryUnreachable: engine.RefusedUnreachable,
		diagnosis.RetryUnknown: engine.RefusedUnknown, diagnosis.RetryUnauthorized: engine.RefusedUnauthorized, diagnosis.RetryForbidden: engine.RefusedForbidden,
	}
	r.Kind = kinds[f.Retry]
	return r
}
