package engine

import (
	"context"
	"net"

	"github.com/berth-run/berth"
)

// Forward connects to a port on the loopback of a pod of an infrastructure that
// was started. CodeUnsupported where its driver can't.
func (e *Engine) Forward(ctx context.Context, infrastructure, pod string, port int) (net.Conn, error) {
	l := e.loop(infrastructure)
	if l == nil {
		return nil, berth.Errorf(berth.CodeNotFound, "infrastructure %q is not known", infrastructure)
	}
	current := l.current.Load()
	if current == nil {
		return nil, berth.Errorf(berth.CodeUnavailable, "infrastructure %s is not connected yet", infrastructure)
	}
	to, ok := current.driver.(Forwarder)
	if !ok {
		return nil, berth.Errorf(berth.CodeUnsupported, "infrastructure %s has no way into its containers", infrastructure)
	}
	return to.Forward(ctx, pod, port)
}
