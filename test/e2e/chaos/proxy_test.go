//go:build e2e

package chaos

import (
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is the network between a control plane and the API server: it can be
// cut, slow, and end in one direction only.
type proxy struct {
	address, target string

	mu    sync.Mutex
	down  bool          // connects nobody
	mute  bool          // swallows what it is sent, and tells nobody
	delay time.Duration // of each piece, in both directions
	conns map[*connection]bool
}

type connection struct{ client, server *net.TCPConn }

func (c *connection) close() { c.client.Close(); c.server.Close() }

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), target: target, conns: map[*connection]bool{}}
	t.Cleanup(func() { listener.Close(); p.cut() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(conn.(*net.TCPConn))
		}
	}()
	return p
}

func (p *proxy) pass(client *net.TCPConn) {
	p.mu.Lock()
	down := p.down
	p.mu.Unlock()
	upstream, err := net.Dial("tcp", p.target)
	if down || err != nil {
		if err == nil {
			upstream.Close()
		}
		client.Close()
		return
	}
	c := &connection{client, upstream.(*net.TCPConn)}
	p.mu.Lock()
	p.conns[c] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(c.server, c.client) })
	both.Go(func() { p.copy(c.client, c.server) })
	both.Wait()
	c.close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

func (p *proxy) copy(to, from *net.TCPConn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		mute, delay := p.mute, p.delay
		p.mu.Unlock()
		if delay > 0 {
			<-time.After(delay)
		}
		if n > 0 && !mute {
			if _, err := to.Write(buffer[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			to.CloseWrite()
			return
		}
	}
}

func (p *proxy) each(fn func(*connection)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		fn(c)
	}
}

// drop ends all connections; new ones are passed on.
func (p *proxy) drop() { p.each((*connection).close) }

// cut ends all connections and passes no new ones on.
func (p *proxy) cut() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.drop()
}

// slow delays each piece from now on.
func (p *proxy) slow(by time.Duration) {
	p.mu.Lock()
	p.delay = by
	p.mu.Unlock()
}

// swallow lets nothing through from now on, and tells nobody.
func (p *proxy) swallow() {
	p.mu.Lock()
	p.mute = true
	p.mu.Unlock()
}

// halfClose ends what the API server sends on each connection: what Berth sends
// still arrives there, and is never answered.
func (p *proxy) halfClose() { p.each(func(c *connection) { c.client.CloseWrite() }) }

// restore passes everything on; connections that missed something end.
func (p *proxy) restore() {
	p.mu.Lock()
	p.down, p.mute, p.delay = false, false, 0
	p.mu.Unlock()
	p.drop()
}
