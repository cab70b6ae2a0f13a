package bucket

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"gocloud.dev/gcerrors"

	"github.com/berth-run/berth"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// explain says what is wrong and what to do about it. Nothing that the SDK
// tells has a credential in it.
func (b *Bucket) explain(key string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var response *awshttp.ResponseError
	status, region := 0, ""
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
		if response.Response != nil {
			region = response.Response.Header.Get("X-Amz-Bucket-Region")
		}
	}
	say := func(code berth.ErrorCode, format string, args ...any) error {
		return berth.Errorf(code, format, args...)
	}
	switch code {
	case "NoSuchBucket":
		return say(berth.CodeInvalid, "%s does not exist: make it, or name another with --storage", b.address)
	case "NoSuchKey", "NotFound":
		return fmt.Errorf("%s in %s: %w", key, b.address, fs.ErrNotExist)
	case "AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem":
		return say(berth.CodeForbidden, "%s: access denied: let the credentials that the server has do s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there", b.address)
	case "InvalidAccessKeyId", "XAdminUserNotFound":
		return say(berth.CodeForbidden, "%s: its server doesn't know the access key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, to ones of its own", b.address)
	case "SignatureDoesNotMatch":
		return say(berth.CodeForbidden, "%s: the secret key is not the access key's: correct AWS_SECRET_ACCESS_KEY, or the profile", b.address)
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException":
		return say(berth.CodeForbidden, "%s: the credentials have expired: renew them", b.address)
	case "RequestTimeTooSkewed":
		return say(berth.CodeUnavailable, "%s: this machine's clock differs too much from the server's: set it", b.address)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "BucketRegionError", "MovedPermanently":
		return b.wrongRegion(region)
	case "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException":
		return say(berth.CodeUnavailable, "%s is busy or in trouble (%s): it is tried again", b.address, code)
	}
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound && status == http.StatusNotFound:
		return fmt.Errorf("%s in %s: %w", key, b.address, fs.ErrNotExist)
	case status == http.StatusMovedPermanently || status == http.StatusBadRequest && region != "" && region != b.address.Region:
		return b.wrongRegion(region)
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return say(berth.CodeForbidden, "%s: access denied: let the credentials that the server has do s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there", b.address)
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests:
		return say(berth.CodeUnavailable, "%s is busy or in trouble (HTTP %d): it is tried again", b.address, status)
	}
	if api != nil && status != 0 {
		return say(berth.CodeInvalid, "%s: its server refuses: %s (%s)", b.address, api.ErrorMessage(), code)
	}
	return b.explainConnection(err)
}

func (b *Bucket) wrongRegion(region string) error {
	if region == "" || region == b.address.Region {
		return berth.Errorf(berth.CodeInvalid, "%s is not in region %s: say where it is with region=", b.address, b.address.Region)
	}
	return berth.Errorf(berth.CodeInvalid, "%s is in region %s, not %s: say region=%s", b.address, region, b.address.Region, region)
}

// explainConnection is explain where the server didn't answer.
func (b *Bucket) explainConnection(err error) error {
	var signing *v4.SigningError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var certificate x509.CertificateInvalidError
	var dns *net.DNSError
	var network *net.OpError
	switch {
	case errors.As(err, &signing), strings.Contains(err.Error(), "get credentials"):
		return berth.Errorf(berth.CodeForbidden, "%s: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, have them in ~/.aws/credentials, or give the machine a role", b.address)
	case errors.As(err, &unknown):
		return berth.Errorf(berth.CodeUnavailable, "%s: its certificate is of an authority that this machine doesn't trust: name that with ca=FILE or AWS_CA_BUNDLE", b.address)
	case errors.As(err, &hostname), errors.As(err, &certificate):
		return berth.Errorf(berth.CodeUnavailable, "%s: its certificate can't be trusted: %w", b.address, errors.Join(asError(hostname.Host != "", hostname), asError(certificate.Cert != nil, certificate)))
	case errors.As(err, &dns):
		return berth.Errorf(berth.CodeUnavailable, "%s can't be reached: the name %s isn't known: correct endpoint= or region=, or the machine's DNS", b.address, dns.Name)
	case errors.As(err, &network):
		return berth.Errorf(berth.CodeUnavailable, "%s can't be reached: %w: see whether it runs, and whether this machine may connect to it", b.address, network)
	case errors.Is(err, context.DeadlineExceeded):
		return berth.Errorf(berth.CodeUnavailable, "%s doesn't answer in time: see whether it runs, and whether this machine may connect to it", b.address)
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		err = cause
	}
	if strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		return berth.Errorf(berth.CodeUnavailable, "%s: its server doesn't speak TLS: correct the port, or write http:// where what is stored may travel unencrypted", b.address)
	}
	return berth.Errorf(berth.CodeUnavailable, "%s can't be used: %w", b.address, err)
}

func asError(ok bool, err error) error {
	if !ok {
		return nil
	}
	return err
}
