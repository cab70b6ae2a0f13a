package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Connections that heads of clusters open to a server, for clients to come
// through: a GET of a path with the id of the cluster, by HTTP/1.1 with Upgrade:
// berth-tunnel and the cluster's own token. Once the server has answered 101 with
// "Berth-Continues: plain", both sides end TLS and go on with what is below; see
// below.go. Where there is no TLS it is "as-is"; a head that did see TLS then knows
// that something else ended it, and leaves it.
//
// From then on the server sends bytes: OfferWaits from time to time, and
// OfferTaken once a client is there, which the head answers by the same. What
// follows is between the client and the head.
const (
	offerProtocol = "berth-tunnel"
	offerHeader   = "Berth-Continues"
	offerTimeout  = 10 * time.Second

	OfferWaits byte = 0
	OfferTaken byte = 1
)

// NewOfferHandler serves heads of clusters; mount it at prefix, which ends with a
// slash. Admit says whether a token is that of a cluster that is there
// (CodeUnauthorized and CodeNotFound where not); offered is given the connections.
func NewOfferHandler(prefix string, admit func(ctx context.Context, token, cluster string) error, offered func(cluster string, conn net.Conn)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cluster := strings.TrimPrefix(r.URL.Path, prefix)
		if r.Method != http.MethodGet || r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), offerProtocol) {
			w.Header().Set("Upgrade", offerProtocol)
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if err := admit(r.Context(), token, cluster); err != nil {
			w.WriteHeader(offerStatus(err))
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if buffered.Reader.Buffered() == 0 { // a head says nothing before it is asked
			if bare, err := continued(conn); err == nil {
				offered(cluster, bare)
				return
			}
		}
		_ = conn.Close()
	})
}

func offerStatus(err error) int {
	switch berth.CodeOf(err) {
	case berth.CodeUnauthorized:
		return http.StatusUnauthorized
	case berth.CodeNotFound:
		return http.StatusGone
	}
	return http.StatusServiceUnavailable
}

// continued answers an upgrade, and returns the connection to go on with.
func continued(conn net.Conn) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(offerTimeout)); err != nil {
		return nil, err
	}
	secure, how := (*tls.Conn)(nil), "as-is"
	if c, ok := conn.(*tls.Conn); ok {
		secure, how = c, "plain"
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n", offerProtocol, offerHeader, how); err != nil {
		return nil, err
	}
	if secure != nil {
		bare, err := belowTLS(secure, secure)
		if err != nil {
			return nil, err
		}
		conn = bare
	}
	return conn, conn.SetDeadline(time.Time{})
}
