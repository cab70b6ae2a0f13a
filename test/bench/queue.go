package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

const (
	submitLimit   = 10_000.0 // tasks a second
	residentLimit = 200.0    // MB
	pageLimit     = 100 * time.Millisecond
	drainFor      = time.Minute
	shortQueue    = 1000
)

// queue measures a server whose queue is long, with each store: how fast tasks
// are stored, what the server needs while they drain, how soon their first page
// is listed, and how fast they are let through, against a short queue.
func queue(ctx context.Context, kubeconfig, binary string, count int) error {
	fmt.Println("SQLite:")
	if err := queueIn(ctx, kubeconfig, binary, count); err != nil {
		return err
	}
	fmt.Println("PostgreSQL:")
	database, err := pgtest.Launch()
	if err != nil {
		return err
	}
	defer database.Close()
	return queueIn(ctx, kubeconfig, binary, count, "BERTH_DATABASE="+database.URL("berth", pgtest.Password, "postgres"))
}

// queueIn is queue with one store.
func queueIn(ctx context.Context, kubeconfig, binary string, count int, env ...string) error {
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
	s, err := newServer(binary, kubeconfig, "infrastructures:\n  queue:\n    kind: kube\n    namespace: "+namespace+"\n    credentials: {mechanism: config, path: ./kubeconfig}\n    limits: {max_pods: 100}\n", env...)
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
	fmt.Printf("let through and ended: %.1f/s of %d queued, %.1f/s of %d; ratio %.2f (flat is 1)\n", short.rate, shortQueue, long.rate, count, long.rate/short.rate)
	fmt.Printf("processor time of the server for each: %.2f ms of %d queued, %.2f ms of %d\n", short.cpu, shortQueue, long.cpu, count)
	return nil
}

// drained is how tasks of a queue end: how many a second, and for how many ms
// of the server's processor time each.
type drained struct{ rate, cpu float64 }

// drain queues tasks and tells how they end, for a while or until all have.
func (s *server) drain(ctx context.Context, count int, limit time.Duration) (drained, error) {
	idle, err := s.figures(ctx)
	if err != nil {
		return drained{}, err
	}
	began := time.Now()
	var arrays []string
	for left := count; left > 0; left -= berth.MaxArray {
		indices := make([]int, min(left, berth.MaxArray))
		for i := range indices {
			indices[i] = i
		}
		array, err := s.service.SubmitArray(ctx, berth.ArraySubmission{Indices: indices, Spec: berth.TaskSpec{Image: image, Args: []string{"true"}}})
		if err != nil {
			return drained{}, err
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
		return drained{}, err
	}
	from := began
	if count > shortQueue {
		from = time.Now()
		if idle, err = s.figures(ctx); err != nil {
			return drained{}, err
		}
		fmt.Printf("memory once they are stored: %.0f MB resident\n", idle.resident/1e6)
	} else {
		before = 0
	}
	resident, pages := 0.0, []time.Duration(nil)
	after := before
	for time.Since(from) < limit && after < count {
		time.Sleep(500 * time.Millisecond)
		f, err := s.figures(ctx)
		if err != nil {
			return drained{}, err
		}
		resident = max(resident, f.resident)
		asked := time.Now()
		if _, err := s.service.Tasks(ctx, berth.TaskQuery{Limit: 100}); err != nil {
			return drained{}, err
		}
		pages = append(pages, time.Since(asked))
		if count <= shortQueue {
			if after, err = ended(); err != nil {
				return drained{}, err
			}
		}
	}
	took := time.Since(from)
	busy, err := s.figures(ctx)
	if err != nil {
		return drained{}, err
	}
	if after, err = ended(); err != nil {
		return drained{}, err
	}
	if count > shortQueue {
		fmt.Printf("while they drain: %.0f MB resident at most (limit %.0f MB), first page of the list p50 %s, slowest %s (limit %s)\n",
			resident/1e6, residentLimit, percentile(pages, 0.5).Round(time.Millisecond), percentile(pages, 1).Round(time.Millisecond), pageLimit)
	}
	n := float64(after - before)
	return drained{n / took.Seconds(), (busy.cpu - idle.cpu) * 1000 / n}, nil
}
