package rpc

import (
	"crypto/hmac"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"time"
)

// What a client and a head of a cluster send each other is encrypted from end to
// end. A second encryption on the way would double what that costs and hide
// nothing more; so where two sides are sure to speak TLS with each other they end
// it (close_notify), and go on with the connection below it.

// belowHeader is in the server's answer to an upgrade: what both sides of one TLS
// connection can derive and nobody else (RFC 9266). A client that derives the same
// may end TLS; one that doesn't, as a proxy on the way has a TLS of its own with
// each, goes on as it is.
const belowHeader = "Berth-Below"

const belowTimeout = 10 * time.Second

var errNotBelow = errors.New("something was sent where TLS was to end")

// channelBinding returns the binding of a TLS connection, "" where it has none.
func channelBinding(conn *tls.Conn) string {
	state := conn.ConnectionState()
	material, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil || state.Version < tls.VersionTLS13 { // before, it may not be unique
		return ""
	}
	return base64.StdEncoding.EncodeToString(material)
}

func sameBinding(conn *tls.Conn, binding string) bool {
	own := channelBinding(conn)
	return own != "" && hmac.Equal([]byte(own), []byte(binding))
}

// belowTLS ends TLS on a connection whose other side does the same, and returns
// what is below, with no deadline. The other side must say nothing more before it
// is spoken to: what was read with its end of TLS would be lost.
func belowTLS(conn *tls.Conn, read io.Reader) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(belowTimeout)); err != nil {
		return nil, err
	}
	if err := conn.CloseWrite(); err != nil {
		return nil, err
	}
	var one [1]byte
	switch n, err := read.Read(one[:]); {
	case n > 0 || err == nil:
		return nil, errNotBelow
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return conn.NetConn(), conn.SetDeadline(time.Time{})
}

// belowIfAsked waits for what a client says first: its end of TLS, and the
// connection goes on below; or something else, which is read again.
func belowIfAsked(conn *tls.Conn) (net.Conn, error) {
	first := make([]byte, 16<<10)
	n, err := conn.Read(first)
	if n > 0 {
		return &begun{Conn: conn, first: first[:n], err: err}, nil
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := conn.CloseWrite(); err != nil {
		return nil, err
	}
	return conn.NetConn(), conn.SetDeadline(time.Time{}) // closing had set one
}

// begun is a connection of which some was read already.
type begun struct {
	net.Conn
	first []byte
	err   error // that was read with it
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.Conn.Read(p)
}

func (b *begun) CloseWrite() error { return closeWrite(b.Conn) }
