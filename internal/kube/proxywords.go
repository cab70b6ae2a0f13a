package kube

import (
	"cmp"
	"context"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/diagnosis"
)

const (
	// wordsAgain and wordsSeldom are how often a sidecar that isn't ready is
	// asked what is wrong: soon at first.
	wordsAgain  = time.Second
	wordsSeldom = 15 * time.Second
	// maxWords is what is read of its last line.
	maxWords = 2 << 10
)

// proxyWords holds what the sidecars of proxies say. That one isn't ready
// stands in its pod; why, in its log.
type proxyWords struct {
	mu     sync.Mutex
	pods   map[types.UID]*askedPod
	ending map[types.UID]time.Time // when the main container was first seen to have ended, and the sidecar not
}

// askedPod is a pod whose sidecar isn't ready.
type askedPod struct {
	last *corev1.Pod
	said string
}

func newProxyWords() *proxyWords {
	return &proxyWords{pods: map[types.UID]*askedPod{}, ending: map[types.UID]time.Time{}}
}

// keep drops what belongs to pods that went while nobody watched.
func (w *proxyWords) keep(pods map[types.UID]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.pods, func(uid types.UID, _ *askedPod) bool { return !pods[uid] })
	maps.DeleteFunc(w.ending, func(uid types.UID, _ time.Time) bool { return !pods[uid] })
}

// again has a pod observed once more.
func (d *Driver) again(pod *corev1.Pod) {
	d.reports.mu.Lock()
	observe := d.reports.observe
	d.reports.mu.Unlock()
	if observe != nil {
		observe(pod)
	}
}

// reportLimit bounds how long the end of an attempt waits for what the sidecar
// of its proxy counted: a sidecar ends when the main container has.
const reportLimit = 8 * time.Second

// transferred returns what went through the proxy of a pod that has ended. wait
// says that the sidecar has still to tell, and that the pod will be observed again.
func (d *Driver) transferred(pod *corev1.Pod, gone bool) (use *berth.NetworkUse, wait bool) {
	s := diagnosis.InitStatus(pod, diagnosis.ProxyContainer)
	if s == nil {
		return nil, false
	}
	ended := cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated)
	if s.State.Running != nil && !gone {
		d.words.mu.Lock()
		since, known := d.words.ending[pod.UID]
		if !known {
			since = time.Now()
			d.words.ending[pod.UID] = since
		}
		d.words.mu.Unlock()
		if left := reportLimit - time.Since(since); left > 0 {
			if !known {
				time.AfterFunc(left, func() { d.again(pod) })
			}
			return nil, true
		}
	}
	d.words.mu.Lock()
	delete(d.words.ending, pod.UID)
	d.words.mu.Unlock()
	if ended == nil {
		return nil, false
	}
	r := agent.DecodeProxyReport(ended.Message)
	if r == nil {
		return nil, false
	}
	return &berth.NetworkUse{SentBytes: r.SentBytes, ReceivedBytes: r.ReceivedBytes, Connections: r.Connections}, false
}

// unready reports whether a pod has a proxy whose sidecar runs, and is not ready
// while the pod needs it.
func unready(pod *corev1.Pod) bool {
	s := diagnosis.InitStatus(pod, diagnosis.ProxyContainer)
	if s == nil || s.State.Running == nil || s.Ready || pod.DeletionTimestamp != nil {
		return false
	}
	main := mainStatus(pod)
	return main == nil || main.State.Terminated == nil
}

// proxySaid returns what the sidecar of a pod said last, and has the pod
// observed again when it says something else.
func (d *Driver) proxySaid(pod *corev1.Pod, gone bool) string {
	w := d.words
	w.mu.Lock()
	defer w.mu.Unlock()
	if gone || !unready(pod) {
		delete(w.pods, pod.UID)
		return ""
	}
	if asked := w.pods[pod.UID]; asked != nil {
		asked.last = pod
		return asked.said
	}
	asked := &askedPod{last: pod}
	w.pods[pod.UID] = asked
	go d.askProxy(pod.UID, asked)
	return ""
}

func (d *Driver) askProxy(uid types.UID, asked *askedPod) {
	for wait := wordsAgain; ; wait = min(2*wait, wordsSeldom) {
		d.words.mu.Lock()
		current, last := d.words.pods[uid] == asked, asked.last
		d.words.mu.Unlock()
		if !current {
			return
		}
		said := d.lastLine(last.Name)
		d.words.mu.Lock()
		changed := d.words.pods[uid] == asked && said != "" && said != asked.said
		if changed {
			asked.said, last = said, asked.last
		}
		d.words.mu.Unlock()
		if changed {
			d.again(last)
		}
		time.Sleep(wait)
	}
}

// lastLine is what the sidecar of a pod wrote last.
func (d *Driver) lastLine(pod string) string {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	stream, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: diagnosis.ProxyContainer, TailLines: ptr(int64(1))}).Stream(ctx)
	if err != nil {
		return ""
	}
	defer stream.Close()
	line, _ := io.ReadAll(io.LimitReader(stream, maxWords))
	return strings.TrimSpace(string(line))
}
