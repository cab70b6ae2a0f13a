// Package process starts the components' programs in the background and ends them, by pid, once it is
// sure that the pid is still theirs. It knows nothing of what they do.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/tools/localkube/internal/network"
)

// Process is a program that runs, or ran. The start time tells it from a later process that was given
// the same pid.
type Process struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // in clock ticks since boot
	Boot      string `json:"boot"`      // ticks count anew after a reboot
	file      string
}

// Folder keeps what is known of a cluster's processes, a file each, beside their logs.
type Folder struct {
	State string // of the .json files
	Logs  string
}

// Log is the file that a component's output goes to.
func (f Folder) Log(name string) string { return filepath.Join(f.Logs, name+".log") }

// environment is all that a component gets: a proxy or another setting of whoever calls must not get in.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}

// Start runs a program in a session of its own, inside the network namespace, with its output in the
// log. It holds nothing of this process open.
func (f Folder) Start(name string, namespace network.Namespace, program string, arguments ...string) error {
	for _, folder := range []string{f.State, f.Logs} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	log, err := os.OpenFile(f.Log(name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = log, log
	command.Dir = "/"
	command.Env = environment
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := namespace.Do(command.Start); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = command.Wait() }() // while this program lives, what dies is not left a zombie
	p := Process{Name: name, PID: command.Process.Pid, Boot: boot()}
	if p.StartTime, err = startTime(p.PID); err != nil {
		return nil // it is dead already; whoever waits for it will say so
	}
	content, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.State, name+".json"), content, 0o644)
}

// All returns the processes that were started, in no order.
func (f Folder) All() []Process {
	files, _ := filepath.Glob(filepath.Join(f.State, "*.json"))
	var all []Process
	for _, file := range files {
		content, err := os.ReadFile(file)
		p := Process{file: file}
		if err == nil && json.Unmarshal(content, &p) == nil {
			all = append(all, p)
		}
	}
	return all
}

// Command returns the program and the arguments of a process that runs.
func (p Process) Command() ([]string, error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
	if err == nil && !p.Alive() {
		err = errors.New("it has ended")
	}
	if err != nil {
		return nil, fmt.Errorf("%s (pid %d): %w", p.Name, p.PID, err)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00"), nil
}

// Alive says whether the process that was started still runs.
func (p Process) Alive() bool {
	if p.PID <= 0 || p.Boot != boot() {
		return false
	}
	at, err := startTime(p.PID)
	return err == nil && at == p.StartTime
}

// Stop ends the process: politely, and by force when it takes longer than the grace.
func (p Process) Stop(ctx context.Context, grace time.Duration) error {
	// Should the pid be given to another process between a check and a signal,
	// the descriptor still means the one that was checked.
	held, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(held)
	}
	wasAlive := p.Alive()
	for signal, limit := unix.SIGTERM, time.Now().Add(grace); p.Alive(); {
		if err == nil {
			err = unix.PidfdSendSignal(held, signal, nil, 0)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end %s (pid %d): %w", p.Name, p.PID, err)
		}
		for p.Alive() && time.Now().Before(limit) {
			if ctx.Err() != nil {
				return fmt.Errorf("end %s (pid %d): %w", p.Name, p.PID, ctx.Err())
			}
			time.Sleep(10 * time.Millisecond) // nothing tells of the end of a process that isn't our child
		}
		if signal == unix.SIGKILL && p.Alive() {
			return fmt.Errorf("end %s (pid %d): it survives SIGKILL", p.Name, p.PID)
		}
		signal, limit = unix.SIGKILL, time.Now().Add(5*time.Second)
	}
	if wasAlive {
		// A process whose first thread is gone may have others, which hold its
		// sockets: whoever starts it again finds its port taken.
		ended(held)
	}
	if p.file != "" {
		return os.Remove(p.file)
	}
	return nil
}

// ended waits until all threads of a process that was ended are gone.
func ended(held int) {
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(held), Events: unix.POLLIN}}, 1000)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// startTime reads field 22 of /proc/PID/stat; a zombie counts as gone.
func startTime(pid int) (uint64, error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The program's name is in parentheses and may hold anything.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func boot() string {
	content, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(content))
}

// Tail returns the last lines of a component's log.
func (f Folder) Tail(name string, lines int) string {
	content, err := os.ReadFile(f.Log(name))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
