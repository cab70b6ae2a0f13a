package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
)

// errHeld says that another process hosts the data directory.
var errHeld = errors.New("the data directory is in use")

const lockName = "lock"

// lock takes a data directory's lock, which the kernel releases when this
// process ends, however it does. errHeld when another process has it.
func lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w: it must be writable; name another with --data or BERTH_DATA", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, berth.Errorf(berth.CodeInternal, "cannot lock the data directory %s (is it on a network filesystem without locks? name a local one with --data): %w", dir, err)
	}
	return file, nil
}

const socketName = "berth.sock"

// withSocket calls fn with a path of the directory's socket that is short
// enough for the kernel (108 bytes), however deep the directory lies: through
// the file descriptor of the directory.
func withSocket(dir string, fn func(path string) error) error {
	path := filepath.Join(dir, socketName)
	if len(path) < 100 {
		return fn(path)
	}
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	return fn("/proc/self/fd/" + strconv.Itoa(int(file.Fd())) + "/" + socketName)
}

// listen makes the socket of a data directory whose lock is held, in place of
// one that an earlier host left.
func listen(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w", err)
	}
	var listener net.Listener
	err := withSocket(dir, func(path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			l.SetUnlinkOnClose(false) // the path may be another host's by then
			listener = l
			err = os.Chmod(path, 0o600)
		}
		return err
	})
	if err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot make the socket in the data directory: %w", err)
	}
	return listener, nil
}
