package let

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/datafs"
)

// runData serves the shared filesystem until nobody has asked for anything for
// a while, or the agent is told to end.
func runData(order *agent.Order, p *processes, r *reporter) *agent.Completion {
	broken := func(cause berth.Cause, format string, args ...any) *agent.Completion {
		return &agent.Completion{ExitCode: exitAgent, Fault: &agent.Fault{Cause: cause, Summary: fmt.Sprintf(format, args...)}}
	}
	if order.DFS == nil {
		return broken(berth.CauseUnknown, "There is no shared filesystem to serve.")
	}
	root, err := os.OpenRoot(order.DFS.Path)
	if err != nil {
		return broken(berth.CauseMountFailed, "The shared filesystem can't be opened: %v.", err)
	}
	_ = root.Close()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(order.Data.Port)))
	if err != nil {
		return broken(berth.CauseUnknown, "The server of the shared filesystem can't listen: %v.", err)
	}
	handler := datafs.NewServer(order.DFS.Path, order.DFS.Path, order.DFS.ReadOnly, order.Data.TokenSum)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	r.tell(agent.Event{Type: berth.EventStarted})
	fmt.Fprintf(r.log.stderr, "berthlet: serving %s; it ends when nobody asked for anything for %s\n", order.DFS.Path, order.Data.Idle)
	look := time.NewTicker(max(order.Data.Idle/20, 10*time.Millisecond))
	defer look.Stop()
	for handler.Idle() < order.Data.Idle {
		select {
		case err := <-failed:
			return broken(berth.CauseUnknown, "The server of the shared filesystem ended: %v.", err)
		case <-p.stopCh:
			_ = server.Close()
			return &agent.Completion{ExitCode: 128 + int(syscall.SIGTERM)}
		case <-look.C:
		}
	}
	// Who asks from now on starts another; who asked a moment ago is answered.
	ctx, cancel := context.WithTimeout(context.Background(), killAfter)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return broken(berth.CauseUnknown, "The server of the shared filesystem can't end: %v.", err)
	}
	return &agent.Completion{}
}
