package redirect

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// small is how much goes one way of a tunnel before the kernel is asked to move
// it by itself (relay): that is faster for much, and takes a thread.
const small = 256 << 10

// relays bounds the threads that move much, one for each tunnel.
const relays = 64

var relaySlots = make(chan struct{}, relays)

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// way is one of the two directions of a tunnel.
type way struct {
	from, to *net.TCPConn
	count    *atomic.Int64
	rest     []byte // was read and not yet written
	ended    bool   // all is written, and to was told so
}

// join copies between two connections until both directions have ended, and
// closes them. An error on one side is one on the other. What is copied is
// added to the counts: of client to server, and back.
func join(client, server *net.TCPConn, sent, received *atomic.Int64) {
	ways := [2]*way{{from: client, to: server, count: sent}, {from: server, to: client, count: received}}
	var (
		wait    sync.WaitGroup
		failed  [2]error
		stopped atomic.Bool
	)
	for i, w := range ways {
		wait.Go(func() {
			failed[i] = w.copy(small, &stopped)
			switch {
			case failed[i] != nil: // the other way has an error too
				client.Close()
				server.Close()
			case !w.ended && !stopped.Swap(true): // it is much: the other way waits for it
				_ = client.SetDeadline(time.Unix(1, 0))
				_ = server.SetDeadline(time.Unix(1, 0))
			}
		})
	}
	wait.Wait()
	err := errors.Join(failed[:]...)
	if err == nil && (!ways[0].ended || !ways[1].ended) {
		_ = client.SetDeadline(time.Time{})
		_ = server.SetDeadline(time.Time{})
		err = moveMuch(ways)
	}
	if err != nil {
		_ = client.SetLinger(0) // a reset, as the other side had
		_ = server.SetLinger(0)
	}
	client.Close()
	server.Close()
}

// copy copies until the end, until it was so much, or until it is stopped.
func (w *way) copy(most int, stopped *atomic.Bool) error {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	interrupted := func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) && stopped.Load() }
	for copied := 0; copied < most; {
		n, err := w.from.Read(*buffer)
		if n > 0 {
			m, err := w.to.Write((*buffer)[:n])
			copied += m
			w.count.Add(int64(m))
			if interrupted(err) {
				w.rest = append(w.rest, (*buffer)[m:n]...)
				return nil
			}
			if err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			w.ended = true
			_ = w.to.CloseWrite()
			return nil
		case interrupted(err):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// moveMuch goes on with two ways of which one at least has much to copy.
func moveMuch(ways [2]*way) error {
	select {
	case relaySlots <- struct{}{}:
		defer func() { <-relaySlots }()
		if r, err := newRelay(ways); err == nil {
			defer r.close()
			return r.run()
		}
	default:
	}
	// Without a thread, or without what else a relay takes.
	var wait sync.WaitGroup
	var failed [2]error
	for i, w := range ways {
		wait.Go(func() {
			if failed[i] = w.copyOn(); failed[i] != nil {
				w.from.Close()
				w.to.Close()
			}
		})
	}
	wait.Wait()
	return errors.Join(failed[:]...)
}

// piece bounds what is moved between two looks at how much it was.
const piece = 64 << 20

// copyOn copies what is left of a way.
func (w *way) copyOn() error {
	if w.ended {
		return nil
	}
	n, err := w.to.Write(w.rest)
	w.count.Add(int64(n))
	for err == nil {
		var n int64
		n, err = w.to.ReadFrom(&io.LimitedReader{R: w.from, N: piece})
		w.count.Add(n)
		if err == nil && n < piece {
			return w.to.CloseWrite()
		}
	}
	return err
}
