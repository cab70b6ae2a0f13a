// Package let is the agent inside a container: PID 1 of functions and of tasks
// with steps. It reads its order from the environment, runs the program or the
// steps, and reports: to the control plane while it runs, where a callback
// reaches it, and always by the container itself, so that a result arrives
// when nothing else can. It ends up in every package's image: it imports little.
package let

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/redirect"
)

// Exit codes of the agent itself, where there is no program's.
const exitAgent = 125

// Main is the agent's command line: nothing, to do what the environment
// orders; "install PATH", to copy itself there for another container; or
// "proxy ...", in the containers that send a pod's traffic through a proxy.
func Main(args []string) int {
	switch {
	case len(args) == 2 && args[0] == "install":
		if err := install(args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "berthlet: "+err.Error())
			return exitAgent
		}
		return 0
	case len(args) == 1 && args[0] == "version":
		fmt.Printf("berthlet, protocol %d\n", agent.Version)
		return 0
	case len(args) > 0 && args[0] == "proxy":
		return redirect.Main(args[1:])
	case len(args) > 0:
		fmt.Fprintln(os.Stderr, "berthlet: unknown arguments; it is started by Berth, with its order in the environment")
		return exitAgent
	}
	order, environ, err := agent.ReadOrder(os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "berthlet: "+err.Error())
		return exitAgent
	}
	return Run(order, environ)
}

// install copies the running program, whole or not at all.
func install(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	temporary, err := os.CreateTemp(filepath.Dir(to), ".berthlet-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if _, err := io.Copy(temporary, from); err != nil {
		return err
	}
	if err := temporary.Chmod(0o755); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), to)
}

// Run does what an order says and returns the exit code of the process.
func Run(order *agent.Order, environ []string) int {
	r := newReporter(order)
	defer r.close()
	p := newProcesses()
	defer p.close()
	r.tell(agent.Event{Type: berth.EventReady})
	var c *agent.Completion
	var results []string
	own := newWork(order, r.log.stderr)
	environ = own.environ(environ)
	switch {
	case order.Probe != nil:
		c = runProbe(order.Probe)
	case order.Data != nil:
		c = runData(order, p, r)
	case order.Call != nil:
		c, results = runCall(order, environ, p, r)
	case len(order.Steps) > 0:
		c = runSteps(order, environ, p, r)
	default:
		c = &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: berth.CauseUnknown, Summary: "The agent was given nothing to do."}}
	}
	own.done(c.ExitCode == 0 && c.Fault == nil && !p.stopped(), results, r.log.stderr)
	c.EndedAt = time.Now().UTC()
	c.Usage = ownCgroups.total()
	if p.stopped() {
		c.Deferred = true // why it was told to stop is for the cluster to say
	}
	r.complete(c)
	return c.ExitCode
}
