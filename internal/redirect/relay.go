package redirect

import (
	"errors"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is what is moved at a time at most: what a user may give a pipe.
	pipeSize = 1 << 20
	// Where so much came at once more will come at once, and it is worth the
	// wait: each time that something is moved wakes two programs. So much is
	// waited for, for so long.
	bulk     = 64 << 10
	lot      = 512 << 10
	patience = 1 // ms
)

// relay moves what comes from each of two connections to the other, by the
// kernel alone (splice): no byte of it comes here. It is a loop of one thread
// about the two, apart from the runtime's poller, which would be woken by each
// packet of either.
type relay struct {
	ends  [2]int // duplicates: the poller does not know of them
	flows [2]flow
}

// flow is one of a relay's directions, of the end with its index to the other.
type flow struct {
	count     *atomic.Int64
	pipe      [2]int
	held      int64 // bytes in the pipe
	last      bool  // nothing more comes
	ended     bool
	patient   bool // there is no event before a lot is there
	come, fit bool // something may be read, or written
}

// newRelay takes over the connections of two ways, which are closed. Where there
// is an error they are as they were.
func newRelay(ways [2]*way) (r *relay, err error) {
	r = &relay{ends: [2]int{-1, -1}}
	for i := range r.flows {
		r.flows[i] = flow{count: ways[i].count, pipe: [2]int{-1, -1}, last: ways[i].ended, ended: ways[i].ended, come: true, fit: true}
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for i, w := range ways {
		if r.ends[i], err = duplicate(w.from); err != nil {
			return nil, err
		}
		f := &r.flows[i]
		if err = unix.Pipe2(f.pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return nil, err
		}
		// Beyond some pipes a user is refused that: then it is 64 KiB at a time.
		_, _ = unix.FcntlInt(uintptr(f.pipe[1]), unix.F_SETPIPE_SZ, pipeSize)
		n, err := unix.Write(f.pipe[1], w.rest)
		if err != nil {
			return nil, err
		}
		f.held = int64(n)
	}
	for _, w := range ways {
		w.from.Close()
	}
	return r, nil
}

// duplicate returns a descriptor of a connection that is only the caller's.
func duplicate(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(failed, err)
}

// close ends it. A connection that has not ended yet is reset.
func (r *relay) close() {
	for i := range r.ends {
		_ = unix.Close(r.ends[i])
		_ = unix.Close(r.flows[i].pipe[0])
		_ = unix.Close(r.flows[i].pipe[1])
	}
}

// run moves until both directions have ended.
func (r *relay) run() error {
	for {
		for i := range r.flows {
			if err := r.flows[i].move(r.ends[i], r.ends[1-i]); err != nil {
				for _, end := range r.ends {
					_ = unix.SetsockoptLinger(end, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				}
				return err
			}
		}
		if r.flows[0].ended && r.flows[1].ended {
			return nil
		}
		if err := r.await(); err != nil {
			return err
		}
	}
}

// move moves what it can.
func (f *flow) move(from, to int) error {
	for !f.ended {
		if f.held == 0 && f.last {
			f.ended = true
			_ = unix.Shutdown(to, unix.SHUT_WR)
			return nil
		}
		if f.held == 0 {
			if !f.come {
				return nil
			}
			n, err := unix.Splice(from, nil, f.pipe[1], nil, pipeSize, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			switch {
			case errors.Is(err, unix.EAGAIN):
				f.come = false
				return nil
			case err != nil && !errors.Is(err, unix.EINTR):
				return err
			case err == nil && n == 0:
				f.last = true
			case n >= bulk:
				f.wait(from, true)
			}
			f.held = max(n, 0)
			f.come = !f.patient
		}
		for f.held > 0 {
			if !f.fit {
				return nil
			}
			n, err := unix.Splice(f.pipe[0], nil, to, nil, int(f.held), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			switch {
			case errors.Is(err, unix.EAGAIN):
				f.fit = false
			case err != nil && !errors.Is(err, unix.EINTR):
				return err
			case n > 0:
				f.held -= n
				f.count.Add(n)
			}
		}
	}
	return nil
}

// wait says whether there is to be an event for whatever comes or for a lot.
func (f *flow) wait(from int, patient bool) {
	if f.patient == patient {
		return
	}
	f.patient = patient
	low := 1
	if patient {
		low = lot
	}
	_ = unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_RCVLOWAT, low)
}

// await waits until something may be moved.
func (r *relay) await() error {
	var polls [2]unix.PollFd
	for i := range r.flows {
		f := &r.flows[i]
		switch {
		case f.ended:
		case f.held > 0:
			polls[1-i].Events |= unix.POLLOUT
		default:
			polls[i].Events |= unix.POLLIN
		}
	}
	limit := -1
	for i := range polls {
		polls[i].Fd = int32(r.ends[i]) //nolint:gosec // a descriptor
		if polls[i].Events == 0 && r.flows[1-i].ended {
			polls[i].Fd = -1 // nothing comes from it or goes to it any more
		}
		if polls[i].Events&unix.POLLIN != 0 && r.flows[i].patient {
			limit = patience
		}
	}
	n, err := unix.Poll(polls[:], limit)
	if err != nil {
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return err
	}
	for i, poll := range polls {
		const gone = unix.POLLERR | unix.POLLHUP
		if poll.Revents&gone != 0 && poll.Events == 0 {
			return unix.ECONNRESET // nobody takes what may still come
		}
		from, into := &r.flows[i], &r.flows[1-i]
		from.come = from.come || poll.Revents&(unix.POLLIN|gone) != 0
		into.fit = into.fit || poll.Revents&(unix.POLLOUT|gone) != 0
		if n == 0 && from.patient { // what is there is all that comes for now
			from.wait(r.ends[i], false)
			from.come = true
		}
	}
	return nil
}
