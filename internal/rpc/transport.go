package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"github.com/berth-run/berth"
)

// errNotBerth says that something else than a server of Berth answers.
type errNotBerth struct{ status, contentType string }

func (e *errNotBerth) Error() string { return "it answered " + e.status + " with " + e.contentType }

// CheckAnswers returns a transport that knows what doesn't come from a server of
// Berth: a proxy in front of one that is away, or something else altogether.
func CheckAnswers(next http.RoundTripper) http.RoundTripper { return checking{next} }

type checking struct{ next http.RoundTripper }

func (c checking) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	contentType := response.Header.Get("Content-Type")
	if strings.HasPrefix(contentType, "application/") || response.StatusCode == http.StatusNotModified {
		return response, nil
	}
	response.Body.Close()
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return nil, errors.New("a proxy answered " + response.Status)
	}
	if contentType == "" {
		contentType = "no content type"
	}
	return nil, &errNotBerth{response.Status, contentType}
}

// CloseIdleConnections lets the client's own reach the transport.
func (c checking) CloseIdleConnections() {
	if t, ok := c.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// transportError tells apart what no second try will change, or returns nil.
func transportError(err error) error {
	var other *errNotBerth
	if errors.As(err, &other) {
		return berth.Errorf(berth.CodeInvalid, "that is not a server of Berth: %w; check the address given with --server or BERTH_SERVER", other)
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var refused *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return berth.Errorf(berth.CodeUnavailable, "the server's certificate is signed by a CA that isn't known here: name its CA with --ca-file or BERTH_CA_FILE (the server keeps a generated one as ca.pem in its data directory): %w", unknown)
	case errors.As(err, &name):
		return berth.Errorf(berth.CodeUnavailable, "the server's certificate is for another name: use one of its names, or start the server with --advertise and this one: %w", name)
	case errors.As(err, &invalid):
		return berth.Errorf(berth.CodeUnavailable, "the server's certificate isn't good: %w; is this machine's clock right?", invalid)
	case errors.As(err, &refused):
		return berth.Errorf(berth.CodeUnavailable, "the server's certificate is refused (its CA is named with --ca-file or BERTH_CA_FILE): %w", refused)
	case errors.As(err, &plain):
		return berth.Errorf(berth.CodeInvalid, "that is not a server of Berth: it doesn't speak TLS: %w", plain)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return berth.Errorf(berth.CodeInvalid, "that is not a server of Berth: it speaks HTTP without TLS; check the address given with --server or BERTH_SERVER")
	}
	return nil
}
