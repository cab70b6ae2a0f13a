package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berth-run/berth"
)

func notFound(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// explain turns an error of the registry protocol into one for a person.
func (s *Store) explain(what string, err error) error {
	var known *berth.Error
	if _, ours := err.(*berth.Error); err == nil || ours || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) { //nolint:errorlint // one inside of another is looked at below
		return err
	}
	var answer *transport.Error
	var untrusted x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	// Of a registry with a private address TLS is tried and then HTTP, which
	// Verified refuses: what was wrong with TLS comes first.
	switch isKnown := errors.As(err, &known); {
	case errors.As(err, &certificate) && !errors.As(err, &untrusted):
		return berth.Errorf(berth.CodeUnavailable, "cannot %s %s: its certificate is wrong: %w", what, s.place(), err)
	case errors.As(err, &untrusted):
		return berth.Errorf(berth.CodeUnavailable, "cannot %s %s: its certificate is not trusted here; have this machine trust the authority that signed it (SSL_CERT_FILE): %w", what, s.place(), err)
	case isKnown:
		return berth.Errorf(known.Code, "cannot %s %s: %w", what, s.place(), known)
	case !errors.As(err, &answer):
		return berth.Errorf(berth.CodeUnavailable, "cannot %s %s: it can't be reached, or the connection broke; what arrived is kept, so trying again goes on: %w", what, s.place(), err)
	}
	told := ""
	for _, d := range answer.Errors {
		told = strings.TrimSpace(d.Message)
	}
	if told != "" {
		told = " (" + told + ")"
	}
	switch code := answer.StatusCode; {
	case code == http.StatusUnauthorized && s.where == LocalHost: // a server's, which is logged in to with its token
		return berth.Errorf(berth.CodeUnauthorized, "cannot %s %s: it wants a token that is good%s; give one with --token, BERTH_TOKEN or BERTH_TOKEN_FILE", what, s.place(), told)
	case code == http.StatusUnauthorized:
		return berth.Errorf(berth.CodeUnauthorized, "cannot %s %s: it wants other credentials%s; log in with docker login %s, which berth reads too ($DOCKER_CONFIG/config.json, else .docker/config.json in the home directory)", what, s.place(), told, strings.SplitN(s.where, "/", 2)[0])
	case code == http.StatusForbidden:
		return berth.Errorf(berth.CodeForbidden, "cannot %s %s: it refuses that to these credentials%s", what, s.place(), told)
	case code == http.StatusNotFound:
		return berth.Errorf(berth.CodeNotFound, "cannot %s %s: it is not there%s", what, s.place(), told)
	case code == http.StatusInsufficientStorage, strings.Contains(answer.Error(), "no space left on device"): // of registries that have no code for it
		return berth.Errorf(berth.CodeExhausted, "cannot %s %s: its disk is full; free some space (berth package remove) and try again: what arrived is kept", what, s.place())
	case code == http.StatusTooManyRequests || code >= 500:
		return berth.Errorf(berth.CodeUnavailable, "cannot %s %s: it answered %d%s; what arrived is kept, so trying again goes on", what, s.place(), code, told)
	case code == http.StatusMethodNotAllowed:
		return berth.Errorf(berth.CodeUnsupported, "cannot %s %s: it doesn't allow that%s", what, s.place(), told)
	}
	return berth.Errorf(berth.CodeInvalid, "cannot %s %s: it answered %d%s: %w", what, s.place(), answer.StatusCode, told, err)
}
