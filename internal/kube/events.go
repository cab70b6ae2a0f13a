package kube

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-run/berth/internal/diagnosis"
)

const (
	// stallAfter is how long a pod may not have started before the namespace's
	// events are watched: where all goes well they are not worth their traffic.
	stallAfter = time.Second
	// wordlessAfter is the same for a pod that neither a scheduler nor a kubelet
	// has said anything about in its status: there is hardly an event of such a
	// one, and where a cluster has much to do there are many.
	wordlessAfter = 20 * time.Second
	// quietAfter is how long nothing may happen to a pod that has not started
	// before it is told what it waits for.
	quietAfter   = 3 * time.Second
	eventsPerPod = 32
	// earlyAtMost is by how much an event may come before the status of its pod.
	earlyAtMost = 10 * time.Second
	// settleAtMost is how long what is known of pods waits for their events.
	settleAtMost = 5 * time.Second
)

// podEvents holds the Kubernetes events of pods that have not started. Watching
// begins when the first of them stalls.
type podEvents struct {
	driver *Driver

	mu       sync.Mutex
	pods     map[types.UID]*pendingPod
	events   map[types.UID][]corev1.Event
	early    map[types.UID]earlyEvent // of pods that are not in pods: the last
	seen     bool                     // events are being watched, or it is not known yet whether they can be
	asked    bool
	needed   chan struct{} // closed when the first pod stalls
	unneeded *sync.Once
	tried    chan struct{}     // closed once they were listed, or could not be
	changed  func(*corev1.Pod) // has a pod looked at again; nil before feed
}

// earlyEvent tells of a probe that failed, where the pod's status doesn't yet.
type earlyEvent struct {
	event corev1.Event
	at    time.Time
}

// pendingPod is a pod that has not started.
type pendingPod struct {
	last    *corev1.Pod // as last seen
	quiet   bool        // nothing has happened to it for quietAfter
	timer   *time.Timer // until it is quiet
	stalled bool        // it exists for stallAfter
}

// wordless reports whether neither a scheduler that found no node nor a kubelet
// has said anything about a pod.
func wordless(pod *corev1.Pod) bool {
	if pod.Status.StartTime != nil || len(pod.Status.ContainerStatuses) > 0 || pod.Status.Reason != "" {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodScheduled || c.Status != corev1.ConditionTrue {
			return false
		}
	}
	return true
}

func newPodEvents(d *Driver) *podEvents {
	return &podEvents{driver: d, pods: map[types.UID]*pendingPod{}, events: map[types.UID][]corev1.Event{}, early: map[types.UID]earlyEvent{}, seen: true, needed: make(chan struct{}), unneeded: &sync.Once{}, tried: make(chan struct{})}
}

// unsettled reports whether a pod's events are worth knowing: it has not
// started, or its shared filesystem has not answered, or does not any more.
func unsettled(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	return pod.Status.Phase == corev1.PodPending || pod.Status.Phase == corev1.PodRunning && !diagnosis.DFSAnswered(pod)
}

// see takes note of a pod as it is now.
func (p *podEvents) see(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	uid, known := pod.UID, p.pods[pod.UID]
	if !unsettled(pod) {
		if known != nil {
			known.timer.Stop()
		}
		delete(p.pods, uid)
		if pod.Status.Phase == corev1.PodRunning || pod.DeletionTimestamp != nil {
			delete(p.events, uid)
		}
		return
	}
	if e, ok := p.early[uid]; ok {
		delete(p.early, uid)
		if time.Since(e.at) < earlyAtMost {
			p.events[uid] = append(p.events[uid], e.event)
		}
	}
	switch {
	case known == nil:
		if !p.asked {
			time.AfterFunc(max(0, stallAfter-time.Since(pod.CreationTimestamp.Time)), func() { p.stalled(uid) })
		}
		// It may be an old one, which another process looked at so far.
		left := min(quietAfter, quietAfter-time.Since(lastChange(pod))) // by a clock that may be ahead of ours
		p.pods[uid] = &pendingPod{last: pod, quiet: left <= 0, timer: time.AfterFunc(max(0, left), func() { p.hush(uid) })}
	case known.last.ResourceVersion != pod.ResourceVersion:
		if !known.quiet || known.last.Spec.NodeName != pod.Spec.NodeName {
			known.stir()
		}
		known.last = pod
		if known.stalled && !wordless(pod) {
			p.need()
		}
	}
}

// lastChange is when something happened to a pod last, by its status.
func lastChange(pod *corev1.Pod) time.Time {
	last := pod.CreationTimestamp.Time
	for _, c := range pod.Status.Conditions {
		if c.LastTransitionTime.After(last) {
			last = c.LastTransitionTime.Time
		}
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if r := c.State.Running; r != nil && r.StartedAt.After(last) {
			last = r.StartedAt.Time
		}
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	return last
}

// settle waits until the events of pods are known, if one of them has stalled
// already: who comes to them late has to know no less than who was there.
func (p *podEvents) settle(ctx context.Context) {
	p.mu.Lock()
	stalled := false
	for _, pod := range p.pods {
		age := time.Since(pod.last.CreationTimestamp.Time)
		stalled = stalled || age > wordlessAfter || age > stallAfter && !wordless(pod.last)
	}
	p.mu.Unlock()
	if !stalled {
		return
	}
	p.need()
	select {
	case <-p.tried:
	case <-time.After(settleAtMost):
	case <-ctx.Done():
	}
}

// need begins to watch events, once.
func (p *podEvents) need() { p.unneeded.Do(func() { close(p.needed) }) }

// stir takes note that something happened to a pod. One that is quiet stays so
// until it is on a node: what else changes of it is seen by itself.
func (p *pendingPod) stir() {
	p.quiet = false
	p.timer.Reset(quietAfter)
}

// hush has a pod looked at again that nothing has happened to for a while.
func (p *podEvents) hush(uid types.UID) {
	p.mu.Lock()
	pod, changed := p.pods[uid], p.changed
	var last *corev1.Pod
	if pod != nil {
		pod.quiet, last = true, pod.last
	}
	p.mu.Unlock()
	if pod != nil && changed != nil {
		changed(last)
	}
}

// quiet reports whether nothing has happened to a pod that has not started for
// a while.
func (p *podEvents) quiet(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pod := p.pods[uid]
	return pod != nil && pod.quiet && pod.last.Status.Phase == corev1.PodPending
}

// stalled takes note that a pod has not started within stallAfter.
func (p *podEvents) stalled(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pod := p.pods[uid]
	switch {
	case pod == nil:
	case pod.stalled || !wordless(pod.last):
		p.need()
	default:
		pod.stalled = true
		time.AfterFunc(wordlessAfter-stallAfter, func() { p.stalled(uid) })
	}
}

// forget drops what was known of pods, before they are listed again.
func (p *podEvents) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pod := range p.pods {
		pod.timer.Stop()
	}
	clear(p.pods)
	clear(p.early)
}

// of returns the events of a pod, and whether they can be seen at all.
func (p *podEvents) of(uid types.UID) ([]corev1.Event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events[uid], p.seen
}

// feed watches events once they are needed, and tells of pods that got one.
func (p *podEvents) feed(ctx context.Context, changed func(*corev1.Pod)) {
	p.mu.Lock()
	p.changed = changed
	p.mu.Unlock()
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
		forbidden := apierrors.IsForbidden(err)
		if forbidden {
			p.mu.Lock()
			p.seen = false
			p.mu.Unlock()
		}
		p.wasTried()
		if forbidden {
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

// wasTried notes that it is known which events there are, or that nobody may know.
func (p *podEvents) wasTried() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.tried:
	default:
		close(p.tried)
	}
}

func (p *podEvents) known() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pods []*corev1.Pod
	for _, pod := range p.pods {
		pods = append(pods, pod.last)
	}
	return pods
}

func (p *podEvents) listAndWatch(ctx context.Context, changed func(*corev1.Pod)) error {
	api := p.driver.client.Clientset.CoreV1().Events(p.driver.client.Namespace)
	// That a pod was scheduled stands in the pod: these are most events where
	// all goes well, and nobody needs them.
	options := metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,reason!=Scheduled"}
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
	p.wasTried()
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
		uid := e.InvolvedObject.UID
		kept := p.events[uid]
		for i := range kept {
			if kept[i].UID == e.UID { // a repeated one is the same object, counted up
				kept = append(kept[:i:i], kept[i+1:]...)
				break
			}
		}
		if len(kept) >= eventsPerPod {
			kept = kept[1:]
		}
		p.events[uid] = append(kept[:len(kept):len(kept)], *e)
		if !pod.quiet {
			pod.stir()
		}
	} else if e.Reason == "Unhealthy" {
		maps.DeleteFunc(p.early, func(_ types.UID, e earlyEvent) bool { return time.Since(e.at) >= earlyAtMost })
		p.early[e.InvolvedObject.UID] = earlyEvent{*e, time.Now()}
	}
	var last *corev1.Pod
	if pod != nil {
		last = pod.last
	}
	p.mu.Unlock()
	if last != nil {
		changed(last)
	}
}
