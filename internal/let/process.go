package let

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
)

// killAfter is how long a program may take to end after a SIGTERM, within the
// 10 s that the pod has: what is left is for the report. Tests shorten it.
var killAfter = 8 * time.Second

// processes starts programs, and reaps all that end: as PID 1 the agent
// inherits whatever its programs leave behind.
type processes struct {
	signals chan os.Signal
	done    chan struct{}

	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus // by pid of a program
	groups  map[int]bool                    // of running programs
	stop    bool                            // the agent was told to end
	stopCh  chan struct{}
}

func newProcesses() *processes {
	// Where it isn't PID 1, orphans come to it all the same.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	p := &processes{
		signals: make(chan os.Signal, 64), done: make(chan struct{}),
		waiting: map[int]chan syscall.WaitStatus{}, groups: map[int]bool{}, stopCh: make(chan struct{}),
	}
	signal.Notify(p.signals)
	go p.handle()
	return p
}

func (p *processes) close() {
	signal.Stop(p.signals)
	close(p.done)
}

// handle reaps on SIGCHLD and passes other signals on.
func (p *processes) handle() {
	for {
		select {
		case <-p.done:
			return
		case s := <-p.signals:
			switch s {
			case syscall.SIGCHLD:
				p.reap()
			case syscall.SIGURG, syscall.SIGPIPE: // Go's own; a closed stdout of ours
			case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
				p.terminate(s.(syscall.Signal))
			default:
				p.forward(s.(syscall.Signal))
			}
		}
	}
}

// terminate passes a wish to end on, and ends what doesn't heed it.
func (p *processes) terminate(s syscall.Signal) {
	p.mu.Lock()
	if !p.stop {
		p.stop = true
		close(p.stopCh)
		time.AfterFunc(killAfter, func() { p.forward(syscall.SIGKILL) })
	}
	p.mu.Unlock()
	p.forward(s)
}

// stopped reports whether the agent was told to end.
func (p *processes) stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop
}

func (p *processes) forward(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.groups {
		_ = syscall.Kill(-pid, s)
	}
}

// reap takes the status of every child that has ended.
func (p *processes) reap() {
	p.mu.Lock() // a program that was just started is in the map before its end is taken
	defer p.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if !status.Exited() && !status.Signaled() {
			continue
		}
		if ch, ok := p.waiting[pid]; ok {
			ch <- status
			delete(p.waiting, pid)
			delete(p.groups, pid)
		}
	}
}

// program is a command that was started.
type program struct {
	pid   int
	ended <-chan syscall.WaitStatus
}

// startError is a command that can't be run, with the exit code that shells use.
type startError struct {
	code  int
	cause berth.Cause
	text  string
}

func (e *startError) Error() string { return e.text }

// start runs a command in a process group of its own. The first word is looked
// up in the PATH of environ. Of a variable that is in environ twice the last
// counts.
func (p *processes) start(words []string, dir string, environ []string, files []*os.File) (*program, error) {
	environ = lastOfEach(environ)
	path, err := lookPath(words[0], dir, environ)
	if err != nil {
		return nil, err
	}
	var fds []uintptr
	for _, f := range files {
		fds = append(fds, f.Fd())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop {
		return nil, &startError{128 + int(syscall.SIGTERM), berth.CauseSignalled, "it was not started: the task was told to end"}
	}
	pid, err := syscall.ForkExec(path, words, &syscall.ProcAttr{Dir: dir, Env: environ, Files: fds, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		return nil, cannotStart(path, err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	p.waiting[pid], p.groups[pid] = ended, true
	return &program{pid, ended}, nil
}

func cannotStart(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		// The file is there: it is what its first line or its loader names.
		return &startError{127, berth.CauseCommandNotFound, path + " can't be run: the interpreter that its first line names, or its loader, is not in the image"}
	case errors.Is(err, syscall.ENOEXEC):
		return &startError{126, berth.CauseArchitectureMismatch, path + " can't be run: it is built for another processor, or is a script without a first line #!/..."}
	case errors.Is(err, syscall.E2BIG):
		return &startError{126, berth.CauseCommandNotExecutable, path + " can't be run: arguments and environment are larger than Linux allows"}
	}
	return &startError{126, berth.CauseCommandNotExecutable, path + " can't be run: " + err.Error()}
}

// lookPath finds a command as a shell does, with the program's own PATH.
func lookPath(name, dir string, environ []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return path, executable(path)
	}
	var denied error
	for _, folder := range filepath.SplitList(getenv(environ, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")) {
		if !filepath.IsAbs(folder) { // or empty: of where the program runs, not of where the agent does
			folder = filepath.Join(dir, folder)
		}
		path := filepath.Join(folder, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		var e *startError
		if errors.As(err, &e) && e.code == 126 {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &startError{127, berth.CauseCommandNotFound, "command " + name + " is not in the image"}
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &startError{127, berth.CauseCommandNotFound, "command " + path + " is not in the image"}
	case err != nil:
		return &startError{126, berth.CauseCommandNotExecutable, err.Error()}
	case info.IsDir():
		return &startError{126, berth.CauseCommandNotExecutable, path + " is a folder"}
	case info.Mode()&0o111 == 0:
		return &startError{126, berth.CauseCommandNotExecutable, path + " is not executable: chmod +x it"}
	}
	return nil
}

// lastOfEach leaves each variable once: where one is there twice, getenv of C
// and Python find the first, which is the image's and not the step's or the
// argument, and shells the last.
func lastOfEach(environ []string) []string {
	at := map[string]int{}
	var kept []string
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if i, ok := at[name]; ok {
			kept[i] = pair
			continue
		}
		at[name] = len(kept)
		kept = append(kept, pair)
	}
	return kept
}

func getenv(environ []string, name, missing string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return value
		}
	}
	return missing
}

// exitCode is a status as shells tell it.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// killGroup ends a program and what it started.
func (p *processes) killGroup(pid int, s syscall.Signal) { _ = syscall.Kill(-pid, s) }

// killRest ends every process that a program left, where that is ours to do:
// as PID 1 nothing but the container's own processes can be hit.
func (p *processes) killRest(pid int) {
	p.killGroup(pid, syscall.SIGKILL)
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}
