package server

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// handoverVariable tells a process that was started in place of another which
// of its files are the listening socket and the lock.
const handoverVariable = "BERTH_SERVER_HANDOVER"

// Handover is what stays open while one server takes the place of another in
// the same process: the socket, on which clients wait meanwhile, and the lock.
type Handover struct {
	Socket *os.File
	Lock   *os.File
}

// Inherited returns what was handed over to this process, if anything was. The
// files are not handed to programs that it starts.
func Inherited() (Handover, bool) {
	value, ok := os.LookupEnv(handoverVariable)
	_ = os.Unsetenv(handoverVariable)
	socket, lock, found := strings.Cut(value, ",")
	if !ok || !found {
		return Handover{}, false
	}
	open := func(text, name string) *os.File {
		fd, err := strconv.Atoi(text)
		if err != nil || fd < 3 {
			return nil
		}
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), name)
	}
	h := Handover{Socket: open(socket, "socket"), Lock: open(lock, "lock")}
	return h, h.Socket != nil && h.Lock != nil
}

// Listener makes the socket a listener again.
func (h Handover) Listener() (net.Listener, error) {
	listener, err := net.FileListener(h.Socket)
	if err != nil {
		return nil, fmt.Errorf("the socket that was handed over can't be listened on: %w", err)
	}
	return listener, h.Socket.Close()
}

// Exec replaces this process by a program, which is handed both. It returns only
// when that can't be done.
func (h Handover) Exec(path string, args []string) error {
	for _, file := range []*os.File{h.Socket, h.Lock} {
		if _, err := unix.FcntlInt(file.Fd(), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	// A second SIGHUP must not end the new program before it listens to it: one
	// that is ignored stays so until then.
	signal.Ignore(syscall.SIGHUP)
	env := append(os.Environ(), fmt.Sprintf("%s=%d,%d", handoverVariable, h.Socket.Fd(), h.Lock.Fd()))
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, args, env)}
}
