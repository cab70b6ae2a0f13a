package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace kept alive by a file that it is mounted on. The file lies in a
// folder of the cluster's own: the usual /run/netns belongs to `ip netns`, whose first use mounts that
// folder over itself and makes running pods' namespaces impossible to remove.
type Namespace struct {
	File string
}

// Make creates the namespace.
func (n Namespace) Make() error {
	if err := os.MkdirAll(filepath.Dir(n.File), 0o755); err != nil {
		return fmt.Errorf("make a folder for the network namespace: %w", err)
	}
	file, err := os.OpenFile(n.File, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make a file for the network namespace: %w", err)
	}
	file.Close()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), n.File, "", unix.MS_BIND, "")
	})
	if err != nil {
		return fmt.Errorf("make the network namespace %s: %w: localkube needs CAP_SYS_ADMIN", n.File, err)
	}
	return nil
}

// Exists says whether the file is a namespace, not only what a reboot left of it.
func (n Namespace) Exists() bool {
	var fs unix.Statfs_t
	return unix.Statfs(n.File, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// Inode identifies the namespace among /proc/PID/ns/net; 0 when there is none.
func (n Namespace) Inode() uint64 {
	var stat unix.Stat_t
	if !n.Exists() || unix.Stat(n.File, &stat) != nil {
		return 0
	}
	return stat.Ino
}

// Do runs a function on a thread inside the namespace. Processes that the function starts and sockets
// that it opens belong to the namespace; goroutines that it starts do not.
func (n Namespace) Do(function func() error) error {
	file, err := os.Open(n.File)
	if err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer file.Close()
	return onOwnThread(func() error {
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", n.File, err)
		}
		return function()
	})
}

// Listening says whether something inside accepts TCP connections on the address.
func (n Namespace) Listening(address netip.AddrPort) bool {
	return n.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		return unix.Connect(socket, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()})
	}) == nil
}

// onOwnThread never unlocks: the runtime ends a thread whose goroutine ends locked, so no other
// goroutine ever runs in the wrong namespace.
func onOwnThread(function func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- function()
	}()
	return <-result
}
