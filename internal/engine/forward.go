package engine

import (
	"context"
	"net"

	"github.com/berth-run/berth"
)

// Forward connects to a port on the loopback of a pod of an infrastructure that
// was started. CodeUnsupported where its driver can't.
func (e *Engine) Forward(ctx context.Context, infrastructure, pod string, port int) (net.Conn, error) {
	to, err := ability[Forwarder](e, infrastructure, "has no way into its containers")
	if err != nil {
		return nil, err
	}
	return to.Forward(ctx, pod, port)
}

// Secrets keeps Secrets of an infrastructure that was started. CodeUnsupported
// where its driver can't.
func (e *Engine) Secrets(infrastructure string) (SecretKeeper, error) {
	return ability[SecretKeeper](e, infrastructure, "has no Secrets")
}

// ability returns the driver of an infrastructure as something that not all are.
func ability[T any](e *Engine, infrastructure, lacks string) (T, error) {
	var none T
	l := e.loop(infrastructure)
	if l == nil {
		return none, berth.Errorf(berth.CodeNotFound, "infrastructure %q is not known", infrastructure)
	}
	current := l.current.Load()
	if current == nil {
		return none, berth.Errorf(berth.CodeUnavailable, "infrastructure %s is not connected yet", infrastructure)
	}
	driver := current.driver
	if around, ok := driver.(interface{ Underlying() Driver }); ok {
		driver = around.Underlying()
	}
	able, ok := driver.(T)
	if !ok {
		return none, berth.Errorf(berth.CodeUnsupported, "infrastructure %s %s", infrastructure, lacks)
	}
	return able, nil
}
