package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

const (
	submitLimit   = 10_000.0 // tasks a second
	residentLimit = 200.0    // MB
	pageLimit     = 100 * time.Millisecond
	drainFor      = time.Minute
	shortQueue    = 1000
)

// queue measures a server whose queue is long: how fast tasks are stored, what
// it needs while they drain, how soon their first page is listed, and how fast
// they are let through, against a short queue.
func queue(ctx context.Context, kubeconfig, binary string, count int) error {
	_, c, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	namespace := fmt.Sprintf("queue-%d", time.Now().Unix())
	if _, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := ready(ctx, c, namespace); err != nil {
		return err
	}
	s, err := newServer(binary, kubeconfig, "infrastructures:\n  queue:\n    kind: kube\n    namespace: "+namespace+"\n    credentials: {mechanism: config, path: ./kubeconfig}\n    limits: {max_pods: 100}\n")
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := s.service.Infrastructures(ctx); err != nil {
		return err
	}
	short, err := s.drain(ctx, shortQueue, time.Hour)
	if err != nil {
		return err
	}
	long, err := s.drain(ctx, count, drainFor)
	if err != nil {
		return err
	}
	fmt.Printf("let through and ended: %.1f/s of %d queued, %.1f/s of %d; ratio %.2f (flat is 1)\n", short, shortQueue, long, count, long/short)
	return nil
}

// drain queues tasks and tells how many a second end, for a while or until all have.
func (s *server) drain(ctx context.Context, count int, limit time.Duration) (float64, error) {
	began := time.Now()
	var arrays []string
	for left := count; left > 0; left -= berth.MaxArray {
		indices := make([]int, min(left, berth.MaxArray))
		for i := range indices {
			indices[i] = i
		}
		array, err := s.service.SubmitArray(ctx, berth.ArraySubmission{Indices: indices, Spec: berth.TaskSpec{Image: image, Args: []string{"true"}}})
		if err != nil {
			return 0, err
		}
		arrays = append(arrays, array.ID)
	}
	rate := float64(count) / time.Since(began).Seconds()
	if count > shortQueue {
		fmt.Printf("submission rate: %.0f tasks a second, %d in arrays of %d (limit %.0f)\n", rate, count, berth.MaxArray, submitLimit)
	}
	ended := func() (n int, err error) {
		for _, id := range arrays {
			array, err := s.service.Array(ctx, id)
			if err != nil {
				return 0, err
			}
			n += array.Ended()
			if array.Ended() == 0 {
				break // those behind it have not begun
			}
		}
		return n, nil
	}
	before, err := ended()
	if err != nil {
		return 0, err
	}
	from := began
	if count > shortQueue {
		from = time.Now()
	} else {
		before = 0
	}
	resident, pages := 0.0, []time.Duration(nil)
	after := before
	for time.Since(from) < limit && after < count {
		time.Sleep(500 * time.Millisecond)
		f, err := s.figures(ctx)
		if err != nil {
			return 0, err
		}
		resident = max(resident, f.resident)
		asked := time.Now()
		if _, err := s.service.Tasks(ctx, berth.TaskQuery{Limit: 100}); err != nil {
			return 0, err
		}
		pages = append(pages, time.Since(asked))
		if count <= shortQueue {
			if after, err = ended(); err != nil {
				return 0, err
			}
		}
	}
	took := time.Since(from)
	if after, err = ended(); err != nil {
		return 0, err
	}
	if count > shortQueue {
		fmt.Printf("while they drain: %.0f MB resident at most (limit %.0f MB), first page of the list p50 %s, slowest %s (limit %s)\n",
			resident/1e6, residentLimit, percentile(pages, 0.5).Round(time.Millisecond), percentile(pages, 1).Round(time.Millisecond), pageLimit)
	}
	return float64(after-before) / took.Seconds(), nil
}
