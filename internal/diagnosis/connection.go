package diagnosis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// trouble is how far a request without an answer came.
type trouble struct {
	why  string
	sent bool // it may have reached the API server
}

var (
	proxyTrouble = regexp.MustCompile(`proxyconnect|socks connect|proxy: |Proxy Authentication Required`)
	cutTrouble   = regexp.MustCompile(`connection reset|connection lost|server closed|broken pipe|unexpected EOF|\bEOF$|use of closed|GOAWAY|client connection force closed`)
	slowTrouble  = regexp.MustCompile(`(?i)timeout|timed out|deadline exceeded`)
	etcdTrouble  = regexp.MustCompile(`etcdserver: |etcd cluster is unavailable|raft`)
	notAnAPI     = regexp.MustCompile(`couldn't get version/kind|invalid character '<'|unable to decode|malformed HTTP`)
)

// connection says why no API server answered, nil when one did.
func (f *errorFacts) connection() *trouble {
	if f.status != nil {
		return nil
	}
	err := f.err
	var (
		op          *net.OpError
		dns         *net.DNSError
		hostname    x509.HostnameError
		unknown     x509.UnknownAuthorityError
		certificate x509.CertificateInvalidError
		verify      *tls.CertificateVerificationError
		header      tls.RecordHeaderError
		address     *url.Error
	)
	dialled := errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect" || op.Op == "socks connect")
	timeout := slowTrouble.MatchString(f.text)
	switch {
	case credentialPlugin.MatchString(f.text):
		return nil // see accessRows
	case proxyTrouble.MatchString(f.text), refusedByProxy(err):
		return &trouble{why: "the proxy on the way does not let us through"}
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return &trouble{why: "DNS does not know the name " + dns.Name}
		}
		return &trouble{why: "DNS does not answer for the name " + dns.Name}
	case errors.As(err, &hostname):
		return &trouble{why: "its TLS certificate is for another name"}
	case errors.As(err, &unknown):
		return &trouble{why: "its TLS certificate is not signed by the authority that the kubeconfig trusts"}
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return &trouble{why: "its TLS certificate has expired, or this machine's clock is wrong"}
	case errors.As(err, &certificate), errors.As(err, &verify):
		return &trouble{why: "its TLS certificate is not valid"}
	case errors.As(err, &header), strings.Contains(f.text, "server gave HTTP response to HTTPS client"):
		return &trouble{why: "it does not speak TLS at that port"}
	case strings.Contains(f.text, "tls: "):
		return &trouble{why: "the TLS handshake failed"}
	case dialled && errors.Is(err, syscall.ECONNREFUSED):
		return &trouble{why: "it refuses the connection, so nothing listens there"}
	case dialled && (errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)):
		return &trouble{why: "there is no route to it from this machine"}
	case dialled && timeout, strings.Contains(f.text, "TLS handshake timeout"):
		return &trouble{why: "it does not answer; a firewall or a VPN that is not connected does this"}
	case dialled:
		return &trouble{why: "no connection could be made"}
	case errors.Is(err, context.Canceled):
		return &trouble{why: "the request was given up before it answered", sent: true}
	case timeout, errors.Is(err, context.DeadlineExceeded):
		return &trouble{why: "it did not answer in time", sent: true}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), cutTrouble.MatchString(f.text):
		return &trouble{why: "the connection was cut before the answer", sent: true}
	case notAnAPI.MatchString(f.text):
		return &trouble{why: "what answers there is not a Kubernetes API server", sent: true}
	case errors.As(err, &address), op != nil:
		return &trouble{why: "the request failed on its way", sent: true}
	}
	return nil
}

// refusedByProxy reports whether an HTTP proxy answered something else than 200
// to CONNECT: all that Go's transport says of it is the text of the status.
func refusedByProxy(err error) bool {
	var address *url.Error
	if !errors.As(err, &address) || errors.Unwrap(address.Err) != nil {
		return false
	}
	text := address.Err.Error()
	for code := http.StatusMultipleChoices; code < 600; code++ {
		if known := http.StatusText(code); known != "" && known == text {
			return true
		}
	}
	return false
}

// connectionHit is a hit on what keeps us from the API server.
func connectionHit(f *errorFacts) *hit {
	t := f.connection()
	if t == nil {
		return nil
	}
	h := f.hit("why", t.why)
	h.unknown = t.sent && f.changes
	return h
}

// busy matches answers that pass: too many requests, restarts, etcd.
func busy(f *errorFacts) *hit {
	code := f.code()
	if f.status == nil {
		return nil
	}
	var why string
	var done bool
	switch {
	case tooBig.MatchString(f.text):
		return nil
	case code == http.StatusTooManyRequests:
		why = "it has too much to do at the moment"
	case etcdTrouble.MatchString(f.text):
		why, done = "its store (etcd) is in trouble", true
	case code == http.StatusServiceUnavailable:
		why = "it says that it is not available at the moment"
	case code == http.StatusGatewayTimeout, f.status.Reason == metav1.StatusReasonServerTimeout, f.status.Reason == metav1.StatusReasonTimeout:
		why, done = "it did not finish the request in time", true
	case code >= 500 && strings.Contains(f.text, "containerLogs"), code >= 500 && strings.HasPrefix(f.resource, "pods/"):
		why = "it cannot reach the node"
	case code >= 500:
		why, done = "it has an error of its own", true
	default:
		return nil
	}
	h := f.hit("why", why)
	h.unknown = done && f.changes
	return h
}

var connectionRows = []row{
	{
		cause: berth.CauseClusterUnreachable, rank: 800, retry: RetryUnreachable, patience: berth.PatienceForever, onError: connectionHit,
		means:   "No API server answers: network, DNS, TLS, a proxy, or it is down. Tasks stay as they are, and go on when it is back.",
		summary: "The cluster of infrastructure {infrastructure} cannot be reached at {server}: {why}.",
		remedy:  "check the network to {server} (a VPN, a proxy) and server: and the certificate authority in the kubeconfig; tasks go on when the cluster is back",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseClusterUnreachable, rank: 810, retry: RetryUnreachable, patience: berth.PatienceForever,
		onError: says(notKubernetes, []int{http.StatusNotFound}),
		means:   "Something answers at the address, but it is not a Kubernetes API server, or the address has a wrong path.",
		summary: "What answers at {server} is not the API server of infrastructure {infrastructure}, or the address has a wrong path.",
		remedy:  "check server: in the kubeconfig",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseClusterUnreachable, rank: 820, retry: RetryTransient, patience: berth.PatienceForever, onError: busy,
		means:   "The API server answers that it can't do it now. Berth tries again, ever more slowly.",
		summary: "The cluster of infrastructure {infrastructure} cannot take the request now: {why}.",
		remedy:  "wait; if it stays, the cluster's control plane has to be looked at",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 830, retry: RetryTransient,
		onError: func(f *errorFacts) *hit {
			waits := f.code() == http.StatusBadRequest && strings.Contains(f.text, "is waiting to start")
			if f.code() != http.StatusConflict && f.code() != http.StatusGone && !waits {
				return nil
			}
			return f.hit()
		},
		means:   "Somebody else changed the same object at the same time, a watch fell behind, or a log isn't there yet. Berth tries again.",
		summary: "The cluster asks to try again: {message}.",
		remedy:  "nothing: Berth tries again",
		by:      berth.RemedyByUser,
	},
}
