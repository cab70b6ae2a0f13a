package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// faultsOfThousand is how many of 1,000 calls fail, in the part with faults.
const faultsOfThousand = 50

// fleet measures one server with many infrastructures, which are simulated by a
// stub of the API in this process: what it needs while nothing happens, and
// tasks through all of them, without faults and with.
func fleet(ctx context.Context, binary string, clusters, each int) error {
	s, err := newStub(clusters)
	if err != nil {
		return err
	}
	defer s.server.Close()
	var infra strings.Builder
	infra.WriteString("infrastructures:\n")
	ca := base64.StdEncoding.EncodeToString(s.ca)
	for i := range clusters {
		kubeconfig := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u, namespace: simulated}}], clusters: [{name: c, cluster: {server: "https://%s:%d", tls-server-name: %s, certificate-authority-data: %s}}], users: [{name: u, user: {token: t%d}}]}`, stubAddress(i), s.port, stubName, ca, i)
		fmt.Fprintf(&infra, "  c%d:\n    kind: kube\n    namespace: simulated\n    credentials: {mechanism: config, content: '%s'}\n", i, kubeconfig)
	}
	server, err := newServer(binary, "", infra.String())
	if err != nil {
		return err
	}
	defer server.close()
	before, err := server.figures(ctx)
	if err != nil {
		return err
	}
	for _, faults := range []int64{0, faultsOfThousand} {
		s.faults.Store(faults)
		s.injected.Store(0)
		rate, states, err := server.through(ctx, clusters, each)
		if err != nil {
			return err
		}
		after, err := server.figures(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%d infrastructures, %d of 1,000 calls fail (%d did): %d tasks through all of them at %.0f/s, %v; %.0f MB, %.0f goroutines\n",
			clusters, faults, s.injected.Load(), clusters*each, rate, states, after.resident/1e6, after.goroutines)
	}
	s.faults.Store(0)
	time.Sleep(20 * time.Second)
	idle, err := server.memory(ctx)
	if err != nil {
		return err
	}
	from := time.Now()
	time.Sleep(20 * time.Second)
	later, err := server.figures(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("idle: %.0f MB resident (%.0f MB before any was connected), %.1f goroutines an infrastructure, %.3f cores\n",
		idle.resident/1e6, before.resident/1e6, (idle.goroutines-before.goroutines)/float64(clusters), (later.cpu-idle.cpu)/time.Since(from).Seconds())
	return nil
}

// through submits tasks to each infrastructure and waits until all have ended.
func (s *server) through(ctx context.Context, clusters, each int) (rate float64, states map[berth.TaskState]int, err error) {
	began := time.Now()
	indices := make([]int, each)
	for i := range indices {
		indices[i] = i
	}
	arrays := make(chan berth.Array, clusters)
	refused := make(chan error, clusters)
	slots := make(chan struct{}, inFlight)
	for i := range clusters {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			for {
				array, err := s.service.SubmitArray(ctx, berth.ArraySubmission{Key: fmt.Sprintf("%d-%d", began.UnixNano(), i), Indices: indices, Spec: berth.TaskSpec{Infrastructure: fmt.Sprintf("c%d", i), Image: image}})
				if err == nil {
					arrays <- array
					return
				}
				if code := berth.CodeOf(err); code != berth.CodeUnavailable && code != berth.CodeForbidden {
					refused <- err
					return
				}
				time.Sleep(time.Second) // because of a fault: a person would try again
			}
		}()
	}
	states = map[berth.TaskState]int{}
	for range clusters {
		var array berth.Array
		select {
		case array = <-arrays:
		case err := <-refused:
			return 0, nil, err
		}
		for a, err := range s.service.WatchArray(ctx, array.ID) {
			if err != nil {
				return 0, nil, err
			}
			array = a
		}
		for state, n := range array.States {
			if n > 0 {
				states[state] += n
			}
		}
	}
	return float64(clusters*each) / time.Since(began).Seconds(), states, nil
}
