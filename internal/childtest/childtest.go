// Package childtest starts the real servers of tests, which end with the process
// of the tests however that ends.
package childtest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command that is sent a signal when this process dies. What it
// returns is closed when the command has ended and was waited for.
func Start(cmd *exec.Cmd, dying syscall.Signal) (<-chan struct{}, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = dying
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The death that is meant is that of the thread, which therefore has to stay,
		// and to be one that nothing else locked.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	return ended, <-started
}
