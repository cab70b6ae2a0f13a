package kube

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// stallAfter is how long a pod may not have started before the namespace's
	// events are watched: where all goes well they are not worth their traffic.
	stallAfter   = time.Second
	eventsPerPod = 32
)

// podEvents holds the Kubernetes events of pods that have not started. Watching
// begins when the first of them stalls.
type podEvents struct {
	driver *Driver

	mu       sync.Mutex
	pods     map[types.UID]*corev1.Pod // not started, as last seen
	events   map[types.UID][]corev1.Event
	seen     bool // events are being watched, or it is not known yet whether they can be
	asked    bool
	needed   chan struct{} // closed when the first pod stalls
	unneeded *sync.Once
}

func newPodEvents(d *Driver) *podEvents {
	return &podEvents{driver: d, pods: map[types.UID]*corev1.Pod{}, events: map[types.UID][]corev1.Event{}, seen: true, needed: make(chan struct{}), unneeded: &sync.Once{}}
}

// see takes note of a pod as it is now.
func (p *podEvents) see(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod.Status.Phase != corev1.PodPending || pod.DeletionTimestamp != nil {
		delete(p.pods, pod.UID)
		if pod.Status.Phase == corev1.PodRunning || pod.DeletionTimestamp != nil {
			delete(p.events, pod.UID)
		}
		return
	}
	if _, known := p.pods[pod.UID]; !known && !p.asked {
		uid := pod.UID
		time.AfterFunc(max(0, stallAfter-time.Since(pod.CreationTimestamp.Time)), func() { p.stalled(uid) })
	}
	p.pods[pod.UID] = pod
}

func (p *podEvents) stalled(uid types.UID) {
	p.mu.Lock()
	_, still := p.pods[uid]
	p.mu.Unlock()
	if still {
		p.unneeded.Do(func() { close(p.needed) })
	}
}

// forget drops what was known of pods, before they are listed again.
func (p *podEvents) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.pods)
}

// of returns the events of a pod, and whether they can be seen at all.
func (p *podEvents) of(uid types.UID) ([]corev1.Event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events[uid], p.seen
}

// feed watches events once they are needed, and tells of pods that got one.
func (p *podEvents) feed(ctx context.Context, changed func(*corev1.Pod)) {
	select {
	case <-ctx.Done():
		return
	case <-p.needed:
	}
	p.mu.Lock()
	p.asked = true
	p.mu.Unlock()
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
		err := p.listAndWatch(ctx, changed)
		if apierrors.IsForbidden(err) {
			p.mu.Lock()
			p.seen = false
			p.mu.Unlock()
			for _, pod := range p.known() {
				changed(pod)
			}
			wait = 30 * time.Second // it may be granted later
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (p *podEvents) known() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pods []*corev1.Pod
	for _, pod := range p.pods {
		pods = append(pods, pod)
	}
	return pods
}

func (p *podEvents) listAndWatch(ctx context.Context, changed func(*corev1.Pod)) error {
	api := p.driver.client.Clientset.CoreV1().Events(p.driver.client.Namespace)
	options := metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod"}
	listCtx, cancel := context.WithTimeout(ctx, callTimeout)
	list, err := api.List(listCtx, options)
	cancel()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.seen = true
	p.mu.Unlock()
	for i := range list.Items {
		p.take(&list.Items[i], changed)
	}
	options.ResourceVersion = list.ResourceVersion
	watcher, err := api.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified:
			if e, ok := event.Object.(*corev1.Event); ok {
				p.take(e, changed)
			}
		case watch.Error:
			return apierrors.FromObject(event.Object)
		}
	}
	return nil
}

// take keeps an event of a pod that has not started.
func (p *podEvents) take(e *corev1.Event, changed func(*corev1.Pod)) {
	e.ManagedFields = nil
	p.mu.Lock()
	pod := p.pods[e.InvolvedObject.UID]
	if pod != nil {
		kept := p.events[pod.UID]
		for i := range kept {
			if kept[i].UID == e.UID { // a repeated one is the same object, counted up
				kept = append(kept[:i:i], kept[i+1:]...)
				break
			}
		}
		if len(kept) >= eventsPerPod {
			kept = kept[1:]
		}
		p.events[pod.UID] = append(kept[:len(kept):len(kept)], *e)
	}
	p.mu.Unlock()
	if pod != nil {
		changed(pod)
	}
}
