package let

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// leftover is how long after a program's end what it left behind has to close
// its output.
const leftover = 100 * time.Millisecond

// packageFile describes the package of this image. Tests have one elsewhere.
var packageFile = agent.PackageFile

// runCall runs a function of the package that the image is of, and returns the
// paths on the shared filesystem that its result names.
func runCall(order *agent.Order, environ []string, p *processes, r *reporter) (*agent.Completion, []string) {
	c := &call{order: order, environ: environ, processes: p, reporter: r}
	done := c.do()
	return done, c.paths
}

func (c *call) do() *agent.Completion {
	fault := c.prepare()
	defer os.RemoveAll(c.folder)
	if fault != nil {
		return &agent.Completion{ExitCode: exitAgent, Fault: fault}
	}
	var err error
	if c.stderr, err = newOutlet(c.reporter.log.stderr, c.secrets); err != nil {
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}}
	}
	defer c.stderr.close()
	c.reporter.tell(agent.Event{Type: berth.EventInitialized, Message: "function " + c.function.Name})
	done := c.initialize()
	if done == nil {
		done = c.run()
	}
	if f := done.Fault; f != nil {
		f.Summary = string(c.secrets.remove([]byte(f.Summary)))
		for i := range f.Evidence {
			f.Evidence[i].Text = string(c.secrets.remove([]byte(f.Evidence[i].Text)))
		}
	}
	return done
}

// call is one function that runs.
type call struct {
	order     *agent.Order
	environ   []string // of the program
	processes *processes
	reporter  *reporter

	pkg      berth.Package
	function *berth.Function
	folder   string // of input and output files
	secrets  secrets
	stderr   *outlet
	files    *files   // nil: it hands none on
	paths    []string // on the shared filesystem that its result names
}

// prepare puts the arguments in place.
func (c *call) prepare() *agent.Fault {
	broken := func(format string, args ...any) *agent.Fault {
		return &agent.Fault{Cause: berth.CauseUnknown, Summary: fmt.Sprintf(format, args...), Remedy: "build the package again with this Berth: berth package build"}
	}
	data, err := os.ReadFile(packageFile)
	if err != nil {
		return broken("The image is not one of a package: %v.", err)
	}
	if err := json.Unmarshal(data, &c.pkg); err != nil {
		return broken("The package's description in the image can't be read: %v.", err)
	}
	if c.function = c.pkg.Function(c.order.Call.Function); c.function == nil {
		return broken("The package in the image has no function %s.", c.order.Call.Function)
	}
	args := map[string]json.RawMessage{}
	for name, value := range c.order.Call.Arguments {
		args[name] = value
	}
	for name, from := range c.order.Call.Secrets {
		value, err := c.secret(from)
		if err != nil {
			return &agent.Fault{Cause: berth.CauseConfigNotFound, Summary: fmt.Sprintf("The value of secret input %s could not be read: %v.", name, err)}
		}
		c.secrets.add(value)
		if args[name], err = c.secretValue(name, value); err != nil {
			return &agent.Fault{Cause: berth.CauseConfigNotFound, Summary: fmt.Sprintf("The value of secret input %s is not of its declared type.", name)}
		}
	}
	if c.folder, err = workFolder(); err != nil {
		return &agent.Fault{Cause: berth.CauseUnknown, Summary: fmt.Sprintf("There is no folder for the arguments: %v.", err), Remedy: "give the container a writable /tmp"}
	}
	c.files = newFiles(c.order, c.processes, c.pkg.WorkDir, c.folder)
	if fault := pathInputs(c.order.DFS, c.files, c.function, c.pkg.Types, args); fault != nil {
		return fault
	}
	vars, err := Environ(c.function, c.pkg.Types, args)
	if err != nil {
		return broken("The arguments can't be passed: %v.", err)
	}
	input := filepath.Join(c.folder, "input.json")
	if err := os.WriteFile(input, InputJSON(args), 0o600); err != nil {
		return &agent.Fault{Cause: berth.CauseUnknown, Summary: fmt.Sprintf("The arguments can't be written: %v.", err)}
	}
	c.environ = append(append(c.environ, vars...), "BERTH_INPUT="+input, "BERTH_OUTPUT="+c.output())
	return nil
}

func (c *call) output() string { return filepath.Join(c.folder, "output.json") }

// workFolder makes a folder that this user alone may read.
func workFolder() (string, error) {
	var last error
	for _, parent := range []string{agent.Dir, os.TempDir(), "/dev/shm"} {
		folder, err := os.MkdirTemp(parent, "call-*")
		if err == nil {
			return folder, nil
		}
		last = err
	}
	return "", last
}

// initialize runs the lines of the package that come before each call.
func (c *call) initialize() *agent.Completion {
	if len(c.pkg.Initialize) == 0 {
		return nil
	}
	stdout, err := newOutlet(c.reporter.log.stdout, c.secrets)
	if err != nil {
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}}
	}
	defer stdout.close()
	for _, line := range c.pkg.Initialize {
		started, fault, code := c.start([]string{"sh", "-ec", line}, stdout.file)
		if fault == nil {
			code = exitCode(<-started.ended)
		}
		if code == 0 {
			continue
		}
		if fault == nil {
			fault = &agent.Fault{Cause: berth.CauseExitedNonZero, Summary: fmt.Sprintf("The package's initialize line %q ended with exit code %d.", line, code)}
		}
		return &agent.Completion{ExitCode: code, Fault: fault}
	}
	return nil
}

func (c *call) start(words []string, stdout *os.File) (*program, *agent.Fault, int) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}, exitAgent
	}
	defer nothing.Close()
	started, err := c.processes.start(words, c.pkg.WorkDir, c.environ, []*os.File{nothing, stdout, c.stderr.file})
	var cannot *startError
	if errors.As(err, &cannot) {
		fmt.Fprintln(c.reporter.log.stderr, "berthlet: "+cannot.text)
		return nil, &agent.Fault{Cause: cannot.cause, Summary: "The program of the package can't be run: " + cannot.text + ".", Remedy: "correct entrypoint or files in container.yml, and build it again"}, cannot.code
	}
	if err != nil {
		return nil, &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}, exitAgent
	}
	return started, nil, 0
}

// run runs the program and takes its result.
func (c *call) run() *agent.Completion {
	reader, writer, err := os.Pipe()
	if err != nil {
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: err.Error()}}
	}
	defer reader.Close()
	exec := c.pkg.Entrypoint.Exec
	if !strings.Contains(exec, "/") {
		if _, err := os.Stat(filepath.Join(c.pkg.WorkDir, exec)); err == nil {
			exec = "./" + exec
		}
	}
	started, fault, code := c.start(append([]string{exec}, c.function.Args...), writer)
	writer.Close()
	if fault != nil {
		return &agent.Completion{ExitCode: code, Fault: fault}
	}
	c.reporter.tell(agent.Event{Type: berth.EventStarted})
	log := &redactor{to: c.reporter.log.stdout, secrets: c.secrets}
	capture := NewCapture(c.function, log)
	copied := make(chan error, 1)
	output := &drain{file: reader}
	go func() { _, err := io.Copy(capture, output); copied <- err }()

	var status syscall.WaitStatus
	var broken bool
	select {
	case status = <-started.ended:
		select {
		case err = <-copied:
		case <-time.After(leftover):
			// What it left behind holds its output open. The result is there.
			c.processes.killRest(started.pid)
			output.finish()
			err = <-copied
		}
		broken = err != nil
	case err = <-copied:
		if broken = err != nil; broken {
			c.processes.killGroup(started.pid, syscall.SIGTERM)
		}
		status = c.wait(started, broken)
	}
	_ = capture.Close() // its error was that of the copy
	_ = log.Close()
	c.reporter.log.stdout.flush()
	if broken && !errors.Is(err, errTooLarge) {
		// The log is gone, which says nothing about the result.
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: fmt.Sprintf("The program's log can't be written, and it was ended: %v.", err)}}
	}
	if broken {
		return c.malformed(0, fmt.Sprintf("The program wrote more than %d MiB as its result, and was ended.", MaxCaptured>>20), capture.Captured())
	}
	return c.complete(exitCode(status), capture.Captured())
}

// wait waits for the end of a program, and where it is to end not for ever.
func (c *call) wait(started *program, ending bool) syscall.WaitStatus {
	if !ending {
		return <-started.ended
	}
	select {
	case status := <-started.ended:
		return status
	case <-time.After(killAfter):
		c.processes.killGroup(started.pid, syscall.SIGKILL)
		return <-started.ended
	}
}

// complete makes the completion of a program that ended by itself.
func (c *call) complete(code int, captured []byte) *agent.Completion {
	if code != 0 {
		// What was to be its result may say why.
		if c.function.Capture != berth.CaptureMarked && c.function.Capture != berth.CapturePrefixed {
			_, _ = c.reporter.log.stdout.Write(c.secrets.remove(captured))
			c.reporter.log.stdout.flush()
		}
		return &agent.Completion{ExitCode: code, Deferred: code == 128+int(syscall.SIGKILL)}
	}
	output := captured
	if data, err := readFile(c.output(), MaxCaptured); err == nil && len(bytes.TrimSpace(data)) > 0 {
		output = data
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return c.malformed(code, fmt.Sprintf("The program's output file can't be used: %v.", err), nil)
	}
	value, err := Decode(output)
	if err != nil {
		return c.malformed(code, fmt.Sprintf("The program ended with exit code 0, and its output is not YAML: %v.", err), output)
	}
	result, problem := c.pkg.Result(c.function.Name, value)
	if problem != nil {
		completion := c.malformed(code, problem.Summary, output)
		completion.Fault.Cause = problem.Cause
		return completion
	}
	result, paths, err := pathResult(c.order.DFS, c.files, c.function, c.pkg.Types, result)
	if errors.Is(err, errNotHanded) {
		return &agent.Completion{ExitCode: code, Fault: &agent.Fault{Cause: berth.CauseCallbackUnreachable, Summary: err.Error(), Remedy: notHanded}}
	}
	if err != nil {
		return c.malformed(code, err.Error(), output)
	}
	c.paths = paths
	return &agent.Completion{ExitCode: code, Result: result}
}

func (c *call) malformed(code int, summary string, output []byte) *agent.Completion {
	fault := &agent.Fault{Cause: berth.CauseResultMalformed, Summary: summary}
	if text := shown(output); text != "" {
		fault.Evidence = []berth.Evidence{{Source: "output of the program", Text: text}}
	}
	return &agent.Completion{ExitCode: code, Fault: fault}
}

func readFile(path string, limit int64) ([]byte, error) {
	// Not blocking: opening a pipe that a program made would wait for its other
	// end for ever.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it is larger than %d MiB", limit>>20)
	}
	return data, err
}

// shown is the beginning of output, for a person to read.
func shown(output []byte) string {
	const most = 2 << 10
	return strings.TrimSpace(strings.ToValidUTF8(string(output[:min(len(output), most)]), "\uFFFD"))
}
