package kube

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth/internal/diagnosis"
)

// The clock here is the test's own.
func TestAPodThatNothingHappensToIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodEvents(nil)
		var looks atomic.Int32
		p.changed = func(*corev1.Pod) { looks.Add(1) }
		see := func(version, node string) {
			p.see(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{UID: "uid-1", ResourceVersion: version, CreationTimestamp: metav1.Now()},
				Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: corev1.PodPending},
			})
		}
		after := func(wait time.Duration, quiet bool, wantLooks int32) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if p.quiet("uid-1") != quiet || looks.Load() != wantLooks {
				t.Errorf("quiet %v, want %v; looked at %d times, want %d", p.quiet("uid-1"), quiet, looks.Load(), wantLooks)
			}
		}
		see("1", "")
		after(quietAfter-time.Second, false, 0)
		see("2", "")
		after(quietAfter-time.Second, false, 0)
		after(time.Second, true, 1)
		see("3", "") // a condition, say: what it waits for is the same
		after(0, true, 1)
		see("4", "node-1")
		after(0, false, 1)
		after(quietAfter, true, 2)
		p.forget()
		after(time.Minute, false, 2)
	})
}

// A process that comes to a pod late knows how long nothing has happened to it.
func TestAPodThatWasQuietBeforeIsQuietAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodEvents(nil)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1", CreationTimestamp: metav1.Now()}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
		time.Sleep(time.Minute)
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		time.Sleep(quietAfter - time.Second)
		p.see(pod)
		if p.quiet("uid-1") {
			t.Error("it is quiet within a moment of its last change")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !p.quiet("uid-1") {
			t.Error("it isn't quiet")
		}
		p.forget()
		p.see(pod)
		if !p.quiet("uid-1") {
			t.Error("it isn't quiet for who comes late")
		}
		p.forget()
	})
}

// What is concluded of a pod that has waited for long is concluded once its
// events are known, or once it is known that they can't be.
func TestWhoComesLateWaitsForTheEvents(t *testing.T) {
	for _, is := range []struct {
		age   time.Duration
		waits bool
	}{{0, false}, {2 * stallAfter, true}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPodEvents(nil)
			began := metav1.Now()
			time.Sleep(is.age)
			p.see(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1", CreationTimestamp: began}, Status: corev1.PodStatus{Phase: corev1.PodPending, StartTime: &began}})
			settled := make(chan struct{})
			go func() { p.settle(t.Context()); close(settled) }()
			synctest.Wait()
			if isClosed(settled) == is.waits || isClosed(p.needed) != is.waits {
				t.Errorf("after %s: settled %v, needed %v", is.age, isClosed(settled), isClosed(p.needed))
			}
			p.wasTried()
			<-settled
			p.forget()
		})
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestEventsAreWatchedOnceSomethingIsSaidOfAPodThatStalls(t *testing.T) {
	started := metav1.Now()
	unscheduled := corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}}
	scheduled := corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}}
	tests := []struct {
		name          string
		first, second corev1.PodStatus // the second comes after 3 s
		want          time.Duration    // after which they are watched
	}{
		{"its kubelet has it from the beginning", corev1.PodStatus{Phase: corev1.PodPending, StartTime: &started}, corev1.PodStatus{Phase: corev1.PodPending}, stallAfter},
		{"no node fits", unscheduled, unscheduled, stallAfter},
		{"its kubelet has it late", scheduled, corev1.PodStatus{Phase: corev1.PodPending, StartTime: &started}, 3 * time.Second},
		{"nobody says anything", scheduled, scheduled, wordlessAfter},
		{"it starts late", scheduled, corev1.PodStatus{Phase: corev1.PodRunning}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPodEvents(nil)
				began := time.Now()
				var after time.Duration
				go func() {
					select {
					case <-p.needed:
						after = time.Since(began)
					case <-t.Context().Done():
					}
				}()
				pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1", ResourceVersion: "1", CreationTimestamp: metav1.Now()}, Status: tt.first}
				p.see(&pod)
				time.Sleep(3 * time.Second)
				next := pod
				next.ResourceVersion, next.Status = "2", tt.second
				p.see(&next)
				time.Sleep(time.Minute)
				synctest.Wait()
				if after != tt.want {
					t.Errorf("events are watched after %v, want %v", after, tt.want)
				}
				p.forget()
			})
		})
	}
}

// A program may run before its shared filesystem answered for the first time:
// that it doesn't is told by an event.
func TestEventsAreKeptOfAProgramWhoseSharedFilesystemHasNotAnswered(t *testing.T) {
	p := newPodEvents(nil)
	see := func(ready bool) {
		p.see(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{
			{Name: diagnosis.DFSContainer, Ready: ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		}}})
	}
	looks := 0
	take := func() {
		p.take(&corev1.Event{ObjectMeta: metav1.ObjectMeta{UID: "event-1"}, InvolvedObject: corev1.ObjectReference{UID: "uid-1"}, Reason: "Unhealthy"}, func(*corev1.Pod) { looks++ })
	}
	see(false)
	take()
	if events, _ := p.of("uid-1"); len(events) != 1 || looks != 1 || p.quiet("uid-1") {
		t.Errorf("%d events, looked at %d times", len(events), looks)
	}
	see(true)
	take()
	if events, _ := p.of("uid-1"); len(events) != 0 || looks != 1 {
		t.Errorf("once it answers: %d events, looked at %d times", len(events), looks)
	}
}

// A kubelet tells that a probe failed by an event, and a moment later by the
// pod's status, with which the pod begins to be one whose events matter.
func TestAnEventThatComesBeforeItsStatusIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPodEvents(nil)
		see := func(ready bool) {
			p.see(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{
				{Name: diagnosis.DFSContainer, Ready: ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			}}})
		}
		failed := &corev1.Event{ObjectMeta: metav1.ObjectMeta{UID: "event-1"}, InvolvedObject: corev1.ObjectReference{UID: "uid-1"}, Reason: "Unhealthy"}
		see(true)
		p.take(failed, func(*corev1.Pod) { t.Error("it is looked at, and answers") })
		see(true)
		see(false)
		if events, _ := p.of("uid-1"); len(events) != 1 {
			t.Errorf("%d events", len(events))
		}
		see(true)
		p.take(failed, nil)
		time.Sleep(2 * earlyAtMost)
		see(false)
		if events, _ := p.of("uid-1"); len(events) != 0 {
			t.Errorf("%d events, of another time", len(events))
		}
		p.forget()
	})
}
