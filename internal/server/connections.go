package server

import (
	"net"
	"net/http"
	"sync"
)

// connections knows on which connections something is going on. net/http alone
// would wait in Shutdown for one whose handshake ends while it begins.
type connections struct {
	mu     sync.Mutex
	active map[net.Conn]bool
}

// changed is for http.Server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == nil {
		c.active = map[net.Conn]bool{}
	}
	if state == http.StateActive {
		c.active[conn] = true
	} else {
		delete(c.active, conn)
	}
}

func (c *connections) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.active) == 0
}
