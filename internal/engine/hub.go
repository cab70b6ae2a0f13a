package engine

import (
	"sync"

	"github.com/berth-run/berth"
)

// hub holds the committed lives for readers and wakes those who watch one.
// Lives in it are never changed, only replaced.
type hub struct {
	mu       sync.RWMutex
	lives    map[string]*berth.Life
	watchers map[string]map[chan struct{}]struct{}
}

func newHub() *hub {
	return &hub{lives: map[string]*berth.Life{}, watchers: map[string]map[chan struct{}]struct{}{}}
}

func (h *hub) life(id string) *berth.Life {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.lives[id]
}

// publish makes a committed life the one that readers see. One that is settled,
// or merely waits, is dropped: it is read from the store from now on.
func (h *hub) publish(l *berth.Life) {
	h.mu.Lock()
	if l.Settled() || l.Parked() {
		delete(h.lives, l.Task.ID)
	} else {
		h.lives[l.Task.ID] = l
	}
	h.wake(l.Task.ID)
	if member := l.Task.Spec.Cluster; member != nil {
		h.wake(member.Cluster)
	}
	h.mu.Unlock()
}

// forget drops the lives of an infrastructure: they are read from the store
// from now on.
func (h *hub) forget(infrastructure string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, l := range h.lives {
		if l.Task.Infrastructure == infrastructure {
			delete(h.lives, id)
			h.wake(id)
		}
	}
}

// touch wakes the watchers of a task that itself did not change.
func (h *hub) touch(id string) {
	h.mu.Lock()
	h.wake(id)
	h.mu.Unlock()
}

// touchAll wakes all watchers.
func (h *hub) touchAll() {
	h.mu.Lock()
	for id := range h.watchers {
		h.wake(id)
	}
	h.mu.Unlock()
}

func (h *hub) wake(id string) {
	for ch := range h.watchers[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// watch returns a channel that has a value after each change of a task.
func (h *hub) watch(id string) (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	if h.watchers[id] == nil {
		h.watchers[id] = map[chan struct{}]struct{}{}
	}
	h.watchers[id][ch] = struct{}{}
	h.mu.Unlock()
	return ch, func() {
		h.mu.Lock()
		delete(h.watchers[id], ch)
		if len(h.watchers[id]) == 0 {
			delete(h.watchers, id)
		}
		h.mu.Unlock()
	}
}
