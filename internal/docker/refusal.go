package docker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

var (
	errCut       = errors.New("the connection to the Engine was cut: unexpected EOF")
	errForgotten = errors.New("the Engine no longer remembers that far back")
	errTooLong   = errors.New("too long")
)

// errNoMemory: more memory is asked for than the machine has.
type errNoMemory struct{ host *host }

func (e errNoMemory) Error() string {
	return fmt.Sprintf("the machine of the Engine has %s of memory", quantity(e.host.memory/(1<<20)*(1<<20)))
}

// errSecretRef: a secret input is a Kubernetes Secret.
type errSecretRef struct{ input engine.SecretInput }

func (e errSecretRef) Error() string {
	return fmt.Sprintf("secret input %s is kube:%s/%s, a Secret of Kubernetes", e.input.Input, e.input.Ref.Name, e.input.Ref.Key)
}

// errNoUser: the image names a user that it doesn't have.
type errNoUser string

func (e errNoUser) Error() string { return string(e) }

// errSlowPull: a pull took longer than a container may take to start.
type errSlowPull struct{ limit time.Duration }

func (e errSlowPull) Error() string {
	return fmt.Sprintf("the pull had not ended after %s: deadline exceeded", e.limit)
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// missing reports whether a file or a container isn't there.
func missing(err error) bool {
	return cerrdefs.IsNotFound(err) || strings.Contains(err.Error(), "Could not find the file")
}

// refuse classifies an error about an attempt's container.
func (d *Driver) refuse(err error, verb string, order engine.Order) *engine.Refusal {
	var refusal *engine.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return d.classify(err, verb, diagnosis.Subject{
		Task: order.TaskID, Pod: order.Pod, Image: order.Spec.Image, CPU: order.Spec.CPU, Memory: order.Spec.Memory,
		Command: append(append([]string{}, order.Spec.Entrypoint...), order.Spec.Args...),
	})
}

// refusal classifies an error.
func (d *Driver) refusal(err error, verb, pod string) *engine.Refusal {
	return d.classify(err, verb, diagnosis.Subject{Pod: pod})
}

func (d *Driver) classify(err error, verb string, s diagnosis.Subject) *engine.Refusal {
	s.Infrastructure, s.Server = d.config.Name, d.client.Server
	f := diagnosis.DockerError(answer(err), verb, s, time.Now())
	kinds := map[diagnosis.Retry]engine.Refused{
		diagnosis.RetryNone: engine.RefusedPermanent, diagnosis.RetryExists: engine.RefusedExists, diagnosis.RetryNotFound: engine.RefusedNotFound,
		diagnosis.RetryTransient: engine.RefusedTransient, diagnosis.RetryUnreachable: engine.RefusedUnreachable,
		diagnosis.RetryUnknown: engine.RefusedUnknown, diagnosis.RetryUnauthorized: engine.RefusedUnauthorized, diagnosis.RetryForbidden: engine.RefusedForbidden,
	}
	return &engine.Refusal{Err: err, Kind: kinds[f.Retry], Diagnosis: &f.Diagnosis, Patience: f.Patience, Hopeless: f.Hopeless}
}

const fromDaemon = "Error response from daemon: "

// answer tells an answer of the Engine from the want of one.
func answer(err error) diagnosis.DockerAnswer {
	a := diagnosis.DockerAnswer{Err: err, Text: strings.TrimPrefix(err.Error(), fromDaemon)}
	var streamed *jsonstream.Error
	var memory errNoMemory
	var secret errSecretRef
	var user errNoUser
	var slow errSlowPull
	var own *berth.Error
	switch {
	case errors.As(err, &memory):
		a.Answered, a.Is = true, diagnosis.DockerNoMemory
	case errors.As(err, &secret):
		a.Answered, a.Is = true, diagnosis.DockerSecretRef
	case errors.As(err, &user), errors.As(err, &own):
		a.Answered, a.Status = true, http.StatusBadRequest
	case errors.As(err, &streamed), errors.As(err, &slow):
		a.Answered = true
	case strings.Contains(a.Text, "HTTP request to an HTTPS server"): // of what is before the Engine
	case strings.HasPrefix(err.Error(), fromDaemon), strings.HasPrefix(err.Error(), "request returned "):
		a.Answered = true
		a.Status = status(err)
	case cerrdefs.IsNotFound(err):
		a.Answered, a.Status = true, http.StatusNotFound
	case cerrdefs.IsInvalidArgument(err): // found by the client itself
		a.Answered, a.Status = true, http.StatusBadRequest
	}
	return a
}

// status returns the HTTP status that an error of the client stands for.
func status(err error) int {
	switch {
	case cerrdefs.IsInvalidArgument(err):
		return http.StatusBadRequest
	case cerrdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case cerrdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case cerrdefs.IsNotFound(err):
		return http.StatusNotFound
	case cerrdefs.IsConflict(err):
		return http.StatusConflict
	case cerrdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
