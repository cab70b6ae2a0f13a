package redirect

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// joined is a tunnel with the program and the server that it joins.
type joined struct {
	program, server *net.TCPConn
	sent, received  atomic.Int64
	done            chan struct{}
}

func newJoined(t *testing.T) *joined {
	t.Helper()
	j := &joined{done: make(chan struct{})}
	program, inner := pair(t)
	outer, server := pair(t)
	j.program, j.server = program, server
	go func() {
		defer close(j.done)
		join(inner, outer, &j.sent, &j.received)
	}()
	return j
}

// end waits until the tunnel has ended.
func (j *joined) end(t *testing.T) {
	t.Helper()
	select {
	case <-j.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the tunnel goes on")
	}
}

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, other} {
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data)
	return data
}

// What is sent arrives whole and in order, however much it is, and each way
// ends by itself.
func TestTunnelsCarryEverythingBothWays(t *testing.T) {
	for _, size := range []int{0, 1, small - 1, small, small + 1, 20 << 20} {
		for _, back := range []int{0, 5, 20 << 20} {
			t.Run(fmt.Sprintf("%d and %d", size, back), func(t *testing.T) {
				t.Parallel()
				j := newJoined(t)
				there, here := noise(size), noise(back)
				var wait sync.WaitGroup
				one := func(from, to *net.TCPConn, data []byte) {
					wait.Go(func() {
						if _, err := from.Write(data); err != nil {
							t.Error(err)
						}
						_ = from.CloseWrite()
					})
					wait.Go(func() {
						if got, err := io.ReadAll(to); err != nil || !bytes.Equal(got, data) {
							t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
						}
					})
				}
				one(j.program, j.server, there)
				one(j.server, j.program, here)
				wait.Wait()
				j.end(t)
				if j.sent.Load() != int64(size) || j.received.Load() != int64(back) {
					t.Errorf("counted %d and %d", j.sent.Load(), j.received.Load())
				}
			})
		}
	}
}

// An answer may come long after all was asked, and much after little.
func TestTunnelsStayOpenOneWay(t *testing.T) {
	for _, size := range []int{10, 4 << 20} {
		j := newJoined(t)
		question, answer := noise(size), noise(size)
		go func() {
			_, _ = j.program.Write(question)
			_ = j.program.CloseWrite()
		}()
		if got, err := io.ReadAll(j.server); err != nil || !bytes.Equal(got, question) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		go func() {
			for piece := range slices.Chunk(answer, len(answer)/2) {
				_, _ = j.server.Write(piece)
			}
			j.server.Close()
		}()
		if got, err := io.ReadAll(j.program); err != nil || !bytes.Equal(got, answer) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		j.end(t)
	}
}

// Questions and answers go on after much was sent, each at once.
func TestTunnelsAnswerAfterMuchWasSent(t *testing.T) {
	j := newJoined(t)
	go func() {
		_, _ = io.Copy(j.server, j.server)
		j.server.Close()
	}()
	for _, size := range []int{1 << 20, 3, 300 << 10, 1, 70 << 10, 8 << 20, 1} {
		for range 3 {
			data := noise(size)
			go func() { _, _ = j.program.Write(data) }()
			got := make([]byte, size)
			if _, err := io.ReadFull(j.program, got); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
	}
	j.program.Close()
	j.end(t)
}

// One that is sent much and takes none of it back for a while does not wait for
// itself.
func TestTunnelsWithAFullWayBack(t *testing.T) {
	j := newJoined(t)
	data := noise(30 << 20)
	go func() { _, _ = j.server.Write(data) }() // nobody reads it yet
	go func() {
		_, _ = j.program.Write(data)
		_ = j.program.CloseWrite()
	}()
	if got, err := io.ReadAll(j.server); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(j.program, got); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	j.server.Close()
	j.end(t)
}

// What is broken on one side is broken on the other, and is not an orderly end.
func TestTunnelsPassResetsOn(t *testing.T) {
	for _, before := range []int{0, 4 << 20} {
		for _, half := range []bool{false, true} {
			j := newJoined(t)
			if half { // one way has ended already
				_ = j.server.CloseWrite()
				if _, err := io.ReadAll(j.program); err != nil {
					t.Fatal(err)
				}
			}
			go func() { _, _ = j.program.Write(noise(before)) }()
			if _, err := io.CopyN(io.Discard, j.server, int64(before)); err != nil {
				t.Fatal(err)
			}
			_ = j.server.SetLinger(0)
			j.server.Close()
			var err error
			for err == nil { // what is sent now has nowhere to go
				_, err = j.program.Write([]byte("x"))
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("after %d bytes: %v", before, err)
			}
			j.end(t)
		}
	}
}

// There are more tunnels than threads that move much.
func TestTunnelsBeyondThoseWithAThread(t *testing.T) {
	const many = relays + 20
	all := make([]*joined, many)
	for i := range all {
		all[i] = newJoined(t)
	}
	data := noise(2 << 20)
	var wait sync.WaitGroup
	for _, j := range all {
		wait.Go(func() {
			_, _ = j.program.Write(data)
			_ = j.program.CloseWrite()
		})
		wait.Go(func() {
			half := make([]byte, len(data)/2)
			if _, err := io.ReadFull(j.server, half); err != nil {
				t.Error(err)
			}
			rest, err := io.ReadAll(j.server)
			if err != nil || !bytes.Equal(append(half, rest...), data) {
				t.Errorf("%d bytes, %v", len(half)+len(rest), err)
			}
			j.server.Close()
		})
	}
	wait.Wait()
	for _, j := range all {
		j.end(t)
	}
	if n := len(relaySlots); n != 0 {
		t.Errorf("%d threads are kept", n)
	}
}
