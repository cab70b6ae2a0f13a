package kube

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
