package let

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// drain reads a program's output to its end, or, where something that the
// program left behind keeps it open, to what was there when it was finished.
// How long that takes is up to the log, whose reader may be slow: by time alone
// the last lines, the result among them, would be lost.
type drain struct {
	file *os.File // of a pipe

	mu       sync.Mutex
	finished bool
	left     int // bytes that were in the pipe at most
}

// finish ends the reading once nothing more is there.
func (d *drain) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished, d.left = true, 64<<10
	_ = d.control(func(fd int) error {
		size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
		if err == nil {
			d.left = size
		}
		return err
	})
	_ = d.file.SetReadDeadline(time.Now()) // a read that waits looks again
}

// over reports whether the reading was finished.
func (d *drain) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.finished
}

// again goes on after a finish.
func (d *drain) again() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished = false
	_ = d.file.SetReadDeadline(time.Time{})
}

func (d *drain) Read(p []byte) (int, error) {
	d.mu.Lock()
	finished := d.finished
	d.mu.Unlock()
	if !finished {
		n, err := d.file.Read(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	return d.rest(p)
}

// rest reads without waiting.
func (d *drain) rest(p []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p = p[:min(len(p), d.left)]
	if len(p) == 0 {
		return 0, io.EOF // what writes on and on
	}
	err = d.control(func(fd int) error {
		for {
			n, err = unix.Read(fd, p)
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if n = max(n, 0); n == 0 && (err == nil || errors.Is(err, unix.EAGAIN)) {
		err = io.EOF
	}
	d.left -= n
	return n, err
}

func (d *drain) control(f func(fd int) error) error {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
