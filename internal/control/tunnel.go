package control

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc"
)

// Tunnel passes connections that come on a listener on to what dial connects to,
// until ctx ends; failed is told of those that can't be.
func Tunnel(ctx context.Context, listener net.Listener, dial func(context.Context) (net.Conn, error), failed func(error)) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		local, err := listener.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			defer func() { _ = local.Close() }()
			remote, err := dial(ctx)
			if err != nil {
				if ctx.Err() == nil {
					failed(err)
				}
				return
			}
			end := context.AfterFunc(ctx, func() { _ = local.Close(); _ = remote.Close() })
			defer end()
			rpc.Pipe(local, remote)
		})
	}
}

// ServeAPI serves the API of a Service to everyone who can connect to a listener,
// until ctx ends.
func ServeAPI(ctx context.Context, service berth.Service, listener net.Listener) error {
	o := rpc.HandlerOptions{Ending: ctx.Done()}
	mux := http.NewServeMux()
	mux.Handle(rpc.NewHandler(service, o))
	mux.Handle(rpc.TunnelPath, rpc.NewTunnelHandler(service, o))
	server := &http.Server{Handler: mux, Protocols: cleartext(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(listener)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
