package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

// errRelist: what was missed can only be found out by listing again.
var errRelist = errors.New("the watch can't be resumed")

// Watch lists the pods of an instance and then watches them. client-go's
// reflector does the same, but its pauses after a failure grow to 30 s and it
// doesn't say how fresh what it shows is.
func (d *Driver) Watch(ctx context.Context, sink engine.Sink) {
	d.reports.mu.Lock()
	d.reports.observe = func(pod *corev1.Pod) { sink.Observed(d.observe(pod, false)) }
	d.reports.mu.Unlock()
	defer d.words.keep(nil)
	go d.client.keepToken(ctx)
	go d.events.feed(ctx, func(pod *corev1.Pod) { sink.Observed(d.observe(pod, false)) })
	for wait := 250 * time.Millisecond; ctx.Err() == nil; {
		began := time.Now()
		err := d.listAndWatch(ctx, sink)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRelist) {
			continue
		}
		if time.Since(began) > 10*time.Second {
			wait = 250 * time.Millisecond
		}
		sink.Lost(d.refusal(err, "watch", "pods", ""))
		select {
		case <-ctx.Done():
		case <-time.After(wait + rand.N(wait/2)):
		}
		wait = min(2*wait, 5*time.Second)
	}
}

func (d *Driver) listAndWatch(ctx context.Context, sink engine.Sink) error {
	selector := metav1.ListOptions{LabelSelector: berth.LabelInstance + "=" + d.instance}
	var pods []berth.Observation
	var late []*corev1.Pod // of which events may tell more
	began := time.Now()
	options := selector
	options.Limit = 500
	d.events.forget()
	listed := map[types.UID]bool{}
	var version string
	for {
		listCtx, cancel := context.WithTimeout(ctx, callTimeout)
		list, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).List(listCtx, options)
		cancel()
		if err != nil {
			return err
		}
		for i := range list.Items {
			pod := &list.Items[i]
			pod.ManagedFields = nil
			d.events.see(pod)
			listed[pod.UID] = true
			if unsettled(pod) {
				late = append(late, pod)
			} else {
				pods = append(pods, d.observe(pod, false))
			}
		}
		version = list.ResourceVersion
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	d.events.settle(ctx)
	for _, pod := range late {
		pods = append(pods, d.observe(pod, false))
	}
	d.reports.keep(listed)
	d.words.keep(listed)
	sink.Listed(pods, began)
	for {
		var err error
		if version, err = d.watchFrom(ctx, sink, version); err != nil {
			return err
		}
	}
}

// watchFrom watches until the server closes the watch, as it does every few
// minutes, and returns where to go on.
func (d *Driver) watchFrom(ctx context.Context, sink engine.Sink, version string) (string, error) {
	watcher, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector: berth.LabelInstance + "=" + d.instance, ResourceVersion: version, AllowWatchBookmarks: true,
		TimeoutSeconds: ptr(int64(300 + rand.N(300))),
	})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return "", errRelist
	}
	if err != nil {
		return "", err
	}
	defer watcher.Stop()
	began, count := time.Now(), 0
	for event := range watcher.ResultChan() {
		count++
		switch event.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				return "", fmt.Errorf("the watch of pods gave a %T", event.Object)
			}
			version = pod.ResourceVersion
			pod.ManagedFields = nil
			d.events.see(pod)
			sink.Observed(d.observe(pod, event.Type == watch.Deleted))
		case watch.Bookmark:
			if pod, ok := event.Object.(*corev1.Pod); ok {
				version = pod.ResourceVersion
			}
		case watch.Error:
			err := apierrors.FromObject(event.Object)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return "", errRelist
			}
			return "", err
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if count == 0 && time.Since(began) < time.Second {
		return "", io.ErrUnexpectedEOF // closed at once: the server goes away
	}
	return version, nil
}
