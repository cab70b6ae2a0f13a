package let

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

const (
	callbackTimeout = 5 * time.Second // of one request
	reachable       = 5 * time.Second // how long the last report is tried where earlier ones arrived
	unreachable     = time.Second     // and where none did: the container's own report will do
)

// callback sends events in order, one request at a time: what happens
// meanwhile goes with the next, so a slow server is asked less, not more.
type callback struct {
	order  *agent.Order
	client *http.Client
	wake   chan struct{}
	last   chan struct{} // closed once there is nothing to come any more
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when the sender has ended

	mu        sync.Mutex
	seq       int
	queue     []agent.Event
	connected bool
	idle      chan struct{} // closed and replaced whenever the queue is empty
	refused   bool
}

func newCallback(order *agent.Order) *callback {
	if order.Callback == nil || order.Callback.URL == "" {
		return nil
	}
	// No proxy: the variables are the program's. HTTP/1.1: one connection, one
	// request at a time.
	transport := &http.Transport{TLSClientConfig: trusting(order.Callback.CA), MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Hour}
	c := &callback{
		order: order, wake: make(chan struct{}, 1), last: make(chan struct{}), done: make(chan struct{}), idle: make(chan struct{}),
		client: &http.Client{
			Transport: transport, Timeout: callbackTimeout,
			// A token goes to the address that it was made for and to no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	go c.run()
	return c
}

func (c *callback) send(e agent.Event) {
	c.mu.Lock()
	c.seq++
	e.Seq = c.seq
	c.queue = append(c.queue, e)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// finish sends the last event and waits until it arrived, for a while. It is
// called once.
func (c *callback) finish(e agent.Event) {
	c.mu.Lock()
	limit := unreachable
	if c.connected {
		limit = reachable
	}
	if c.refused {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.send(e)
	close(c.last)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		c.mu.Lock()
		empty, idle := len(c.queue) == 0 || c.refused, c.idle
		c.mu.Unlock()
		if empty {
			return
		}
		select {
		case <-idle:
		case <-timer.C:
			return // it learns of it from the cluster
		}
	}
}

func (c *callback) close() {
	c.cancel()
	<-c.done
	c.client.CloseIdleConnections()
}

func (c *callback) run() {
	defer close(c.done)
	heartbeat := time.NewTicker(max(c.order.Callback.Heartbeat, time.Second)) // also between events: it measures
	defer heartbeat.Stop()
	wait := 100 * time.Millisecond
	last := c.last
	for {
		batch := c.batch()
		if len(batch) == 0 {
			select {
			case <-c.ctx.Done():
				return
			case <-c.wake:
				continue
			case <-heartbeat.C:
				batch = []agent.Event{{Type: berth.EventHeartbeat, At: time.Now().UTC(), Usage: ownCgroups.read()}}
			}
		}
		switch c.post(batch) {
		case accepted:
			wait = 100 * time.Millisecond
			c.sent(batch)
			continue
		case refused:
			c.mu.Lock()
			c.refused = true
			c.mu.Unlock()
			c.sent(batch)
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case <-last:
			// A pause of some seconds would take all the time that the end has: a
			// server that is there again would never be told.
			last, wait = nil, 100*time.Millisecond
			continue
		case <-time.After(wait):
		}
		wait = min(2*wait, 5*time.Second)
	}
}

func (c *callback) batch() []agent.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue[:len(c.queue):len(c.queue)]
}

// sent drops what arrived from the queue.
func (c *callback) sent(batch []agent.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.refused {
		c.connected = true
	}
	if batch[0].Seq > 0 {
		c.queue = c.queue[len(batch):]
	}
	if len(c.queue) == 0 || c.refused {
		close(c.idle)
		c.idle = make(chan struct{})
	}
}

type answer int

const (
	accepted answer = iota
	again
	refused
)

func (c *callback) post(events []agent.Event) answer {
	body, err := json.Marshal(agent.Report{Task: c.order.Task, Attempt: c.order.Attempt, Pod: c.order.Pod, Events: events})
	if err != nil {
		return refused
	}
	request, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.order.Callback.URL, bytes.NewReader(body))
	if err != nil {
		return refused
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+c.order.Callback.Token)
	response, err := c.client.Do(request)
	if err != nil {
		return again
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	switch {
	case response.StatusCode < 300:
		return accepted
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500 || response.StatusCode == http.StatusRequestTimeout:
		return again
	}
	return refused // a wrong token, an attempt that is over, a server that isn't Berth's
}
