package rpc

import (
	"context"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc/berthv1/berthv1connect"
)

// maxRequest bounds a request's message, unpacked: the largest is a task with
// long arguments, or a kubeconfig.
const maxRequest = 4 << 20

// HandlerOptions change how a Service is served. The zero value serves it to
// everyone who can connect, as on a socket that only its owner can open.
type HandlerOptions struct {
	// Authenticate returns the context that a request is answered in, with its
	// caller. It is asked before anything of the body is read.
	Authenticate func(*http.Request) (context.Context, error)

	// Ending is closed when the server is about to end: streams end, new
	// requests are sent away. Calls that run go on.
	Ending <-chan struct{}

	// Observe is told of each call: its method, and its code or "ok".
	Observe func(method, code string, took time.Duration)
}

// NewHandler serves a Service; mount it at the path that it returns.
func NewHandler(service berth.Service, o HandlerOptions) (string, http.Handler) {
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
	// A compressor takes most of a megabyte, and a task's events are small.
	options := []connect.HandlerOption{connect.WithReadMaxBytes(maxRequest), connect.WithCompressMinBytes(16 << 10), connect.WithInterceptors(&interceptor{o})}
	path, handler := berthv1connect.NewBerthServiceHandler(&server{service}, options...)
	return path, &gate{options: o, next: handler, errors: connect.NewErrorWriter()}
}

// gate lets requests through that have a caller, while the server stays.
type gate struct {
	options HandlerOptions
	next    http.Handler
	errors  *connect.ErrorWriter
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	refuse := func(err error) {
		err = toWire(err)
		g.options.Observe("none", connect.CodeOf(err).String(), time.Since(began))
		_ = g.errors.Write(w, r, err) // whoever asked may be gone
	}
	if ended(g.options.Ending) {
		refuse(berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding))
		return
	}
	if g.options.Authenticate != nil {
		ctx, err := g.options.Authenticate(r)
		if err != nil {
			if berth.CodeOf(err) == berth.CodeUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="berth"`)
			}
			refuse(err)
			return
		}
		r = r.WithContext(ctx)
	}
	g.next.ServeHTTP(w, r)
}

func ended(ending <-chan struct{}) bool {
	select {
	case <-ending:
		return true
	default:
		return false
	}
}

// interceptor counts calls, and ends streams when the server is about to end.
type interceptor struct{ options HandlerOptions }

func (i *interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		response, err := next(ctx, r)
		err = because(ctx, err)
		i.observe(r.Spec(), err, began)
		return response, err
	}
}

func (i *interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		began := time.Now()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		done := make(chan struct{})
		defer close(done)
		go func() {
			select {
			case <-i.options.Ending: // nil: never
				cancel(berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding))
			case <-done:
			}
		}()
		err := because(ctx, next(ctx, conn))
		i.observe(conn.Spec(), err, began)
		return err
	}
}

func (i *interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// because tells why a call was broken off, where it is the server that did it.
func because(ctx context.Context, err error) error {
	if connect.CodeOf(err) == connect.CodeCanceled {
		if cause := context.Cause(ctx); berth.CodeOf(cause) != berth.CodeInternal {
			return toWire(cause)
		}
	}
	return err
}

func (i *interceptor) observe(spec connect.Spec, err error, began time.Time) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	i.options.Observe(spec.Procedure[strings.LastIndex(spec.Procedure, "/")+1:], code, time.Since(began))
}
