// Package redirect sends all that a pod sends through a proxy. It is what
// berthlet does in two containers of a pod whose infrastructure has
// proxy_address: one with NET_ADMIN that makes the rules and ends (Rules), and
// a sidecar without any privilege that every TCP connection and every question
// to a resolver ends up at (Serve), which speaks SOCKS5 or HTTP CONNECT to the
// proxy. What the rules don't let through is refused, so nothing gets around,
// whatever becomes of the sidecar. Orders come in by the environment (see
// agent.Proxy); what was counted, and what is wrong, goes out by the
// termination message, the log and the answers to probes. It is part of the
// agent, which every package's image has: it imports little.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/berth-run/berth/internal/agent"
)

// commands are what follows "berthlet proxy" on the command line.
var commands = map[string]func(context.Context, *agent.Proxy) error{"rules": Rules, "serve": Serve, "ready": Ready, "usable": Usable}

// Main runs one of the commands; ready and usable are what probes ask.
func Main(args []string) int {
	run := commands[first(args)]
	if run == nil {
		fmt.Fprintln(os.Stderr, "berthlet proxy: unknown arguments; it is started by Berth, with its order in the environment")
		return 2
	}
	order, err := agent.ReadProxy(os.Getenv)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = run(ctx, order)
	}
	if err == nil {
		return 0
	}
	if what := first(args); what == "ready" || what == "usable" {
		fmt.Println(err) // what a probe prints is shown in the event of its failure
		return 1
	}
	fmt.Fprintln(os.Stderr, err)
	if order != nil && first(args) == "rules" {
		_ = os.WriteFile(order.MessageFile(), []byte(err.Error()), 0o600)
	}
	if errors.Is(err, errNameless) {
		return agent.ProxyNameless
	}
	return 1
}

func first(args []string) string {
	if len(args) != 1 {
		return ""
	}
	return args[0]
}
