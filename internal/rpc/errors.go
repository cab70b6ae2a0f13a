package rpc

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

var codes = map[berth.ErrorCode]connect.Code{
	berth.CodeInvalid:      connect.CodeInvalidArgument,
	berth.CodeNotFound:     connect.CodeNotFound,
	berth.CodeConflict:     connect.CodeFailedPrecondition,
	berth.CodeUnauthorized: connect.CodeUnauthenticated,
	berth.CodeForbidden:    connect.CodePermissionDenied,
	berth.CodeUnavailable:  connect.CodeUnavailable,
	berth.CodeExhausted:    connect.CodeResourceExhausted,
	berth.CodeUnsupported:  connect.CodeUnimplemented,
	berth.CodeInternal:     connect.CodeInternal,
}

// toWire puts an error of the domain on the wire.
func toWire(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	wire := connect.NewError(codes[berth.CodeOf(err)], err)
	if errors.Is(err, berth.ErrEnding) {
		wire.Meta().Set(endingHeader, "true")
	}
	var told *berth.Error
	if errors.As(err, &told) && told.Diagnosis != nil {
		if detail, err := connect.NewErrorDetail(fromDiagnosis(told.Diagnosis)); err == nil {
			wire.AddDetail(detail)
		}
	}
	return wire
}

// endingHeader marks errors of a server that is about to end.
const endingHeader = "Berth-Ending"

// ErrGone says that the server went away before it answered: the call may be
// made again, to whoever serves now.
var ErrGone = errors.New("the server went away")

// fromWire turns an error of a call into one of the domain. One that the
// server did not send itself is a server that went away.
func fromWire(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var wire *connect.Error
	if !errors.As(err, &wire) {
		return err
	}
	if !connect.IsWireError(err) {
		if known := transportError(err); known != nil {
			return known
		}
		return berth.Errorf(berth.CodeUnavailable, "%w: %s", ErrGone, wire.Message())
	}
	if wire.Meta().Get(endingHeader) != "" {
		return berth.Errorf(berth.CodeUnavailable, "%w: %s", ErrGone, wire.Message())
	}
	for code, c := range codes {
		if c == wire.Code() {
			return &berth.Error{Code: code, Message: wire.Message(), Err: err, Diagnosis: diagnosisOf(wire)}
		}
	}
	return &berth.Error{Code: berth.CodeInternal, Message: wire.Message(), Err: err}
}

// diagnosisOf is the diagnosis among an error's details, if there is one.
func diagnosisOf(wire *connect.Error) *berth.Diagnosis {
	for _, detail := range wire.Details() {
		if value, err := detail.Value(); err == nil {
			if d, ok := value.(*pb.Diagnosis); ok {
				return toDiagnosis(d)
			}
		}
	}
	return nil
}
