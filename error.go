package berth

import (
	"errors"
	"fmt"
)

// ErrorCode is the machine-readable kind of an [Error]. The set is small and
// stable; adapters translate it (Connect codes on the wire).
type ErrorCode string

const (
	CodeInvalid      ErrorCode = "invalid"      // the request is wrong; nothing was created
	CodeNotFound     ErrorCode = "not_found"    // no such task, infrastructure, ...
	CodeConflict     ErrorCode = "conflict"     // exists already, or the state forbids it
	CodeUnauthorized ErrorCode = "unauthorized" // credentials missing, wrong or expired
	CodeForbidden    ErrorCode = "forbidden"    // known, but not allowed
	CodeUnavailable  ErrorCode = "unavailable"  // cannot be reached now; trying again may help
	CodeExhausted    ErrorCode = "exhausted"    // disk full, store full, quota
	CodeUnsupported  ErrorCode = "unsupported"  // a feature that this version doesn't have
	CodeInternal     ErrorCode = "internal"     // a fault of Berth
)

// Error is an error for a person: what was tried, on what, and what to do.
type Error struct {
	Code    ErrorCode
	Message string
	Err     error // the cause, for errors.Is; its text is part of Message already

	// Diagnosis says why a cluster would not take a submission: cause, evidence
	// and remedy; nil for any other error.
	Diagnosis *Diagnosis
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Err }

// Lasting reports whether a request that failed so fails again however often it
// is made.
func Lasting(err error) bool {
	switch CodeOf(err) {
	case CodeInvalid, CodeForbidden, CodeNotFound, CodeConflict, CodeUnsupported, CodeUnauthorized:
		return true
	}
	return false
}

// ErrEnding is the cause of a CodeUnavailable error of a process that is about
// to end: the same call may be made to the one that comes after it.
var ErrEnding = errors.New("this process is about to end")

// Refused is the error for a submission that an infrastructure would not take,
// however long it waits: CodeForbidden where a rule is against it, CodeInvalid
// where it asks for what isn't there. Neither is worth trying again as it is.
func Refused(infrastructure string, d *Diagnosis) *Error {
	code := CodeInvalid
	switch d.Cause {
	case CauseForbidden, CausePodSecurityViolated, CauseAdmissionDenied:
		code = CodeForbidden
	}
	message := fmt.Sprintf("infrastructure %s would not take this task: %s: %s", infrastructure, d.Cause, d.Summary)
	if d.Remedy.Text != "" {
		message += fmt.Sprintf(" What to do (%s): %s", d.Remedy.By, d.Remedy.Text)
	}
	return &Error{Code: code, Message: message, Diagnosis: d}
}

// NoSuchTask is the error for a task that isn't there, or that the caller may
// not see: the two can't be told apart.
func NoSuchTask(id string) *Error {
	return Errorf(CodeNotFound, "there is no task %q here: see berth task list", id)
}

// Errorf makes an [Error]. A %w in the format keeps the cause for errors.Is.
func Errorf(code ErrorCode, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

// CodeOf returns the code of the first [Error] in err's chain, CodeInternal
// for any other error, and "" for nil.
func CodeOf(err error) ErrorCode {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
