package build

import "syscall"

// processGroup gives the go command a group of its own, to end its compilers with it.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
