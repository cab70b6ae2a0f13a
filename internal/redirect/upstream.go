package redirect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

const (
	// dialLimit bounds connecting to the proxy.
	dialLimit = 5 * time.Second
	// answerLimit bounds what the proxy answers by itself; that it connects
	// somewhere may take it connectLimit.
	answerLimit  = 5 * time.Second
	connectLimit = 2 * time.Minute
)

// unusable is an error of the proxy itself, and not of what it was to connect to.
type unusable struct{ text string }

func (e *unusable) Error() string { return e.text }

// slow is an answer that did not come in time: of the proxy, or of what it was
// to connect to.
type slow struct{ text string }

func (e *slow) Error() string { return e.text }

func unusablef(format string, args ...any) error { return &unusable{fmt.Sprintf(format, args...)} }

// upstream is the proxy.
type upstream struct {
	order   *agent.Proxy
	proxies []netip.AddrPort
}

// dial connects to an address, HOST:PORT, by the proxy. early is what came with
// the proxy's answer and belongs to the connection.
func (u *upstream) dial(ctx context.Context, target string) (conn *net.TCPConn, early []byte, err error) {
	conn, err = u.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if u.order.Protocol == berth.ProxyHTTP {
		early, err = u.httpConnect(conn, target, connectLimit)
	} else if err = u.socksGreet(conn); err == nil {
		err = u.socksConnect(conn, target)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &slow{fmt.Sprintf("the proxy did not connect to %s within %s", target, connectLimit)}
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, early, nil
}

// check finds out whether the proxy can be used. An HTTP proxy says nothing
// before it is asked for something: it is asked for itself, and any answer of
// it will do.
func (u *upstream) check(ctx context.Context) error {
	conn, err := u.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if u.order.Protocol == berth.ProxySOCKS5 {
		return u.socksGreet(conn)
	}
	_, err = u.httpConnect(conn, conn.RemoteAddr().String(), answerLimit)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return u.broken(err)
	}
	var wrong *unusable
	if errors.As(err, &wrong) {
		return err
	}
	return nil
}

func (u *upstream) connect(ctx context.Context) (*net.TCPConn, error) {
	var last error
	for _, proxy := range u.proxies {
		dialer := net.Dialer{Timeout: dialLimit, Control: withoutPacing}
		conn, err := dialer.DialContext(ctx, "tcp4", proxy.String())
		if err == nil {
			tcp := conn.(*net.TCPConn)
			pacedFar(tcp)
			return tcp, nil
		}
		last = err
	}
	return nil, unusablef("%s can't be reached: %v", u.order.Address, why(last))
}

// why is an error without the addresses, which the text has already.
func why(err error) error {
	var op *net.OpError
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number
	case errors.As(err, &op) && op.Timeout():
		return fmt.Errorf("no answer within %s", dialLimit)
	}
	return err
}

// broken says how a proxy that was connected to did not answer.
func (u *upstream) broken(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return unusablef("%s accepts connections and does not answer as a proxy with %s does", u.order.Address, map[string]string{berth.ProxyHTTP: "HTTP", berth.ProxySOCKS5: "SOCKS5"}[u.order.Protocol])
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return unusablef("%s closes connections without an answer", u.order.Address)
	}
	return unusablef("%s: %v", u.order.Address, why(err))
}

// httpConnect asks for a tunnel (RFC 9110, section 9.3.6).
func (u *upstream) httpConnect(conn net.Conn, target string, limit time.Duration) (early []byte, err error) {
	request := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if login := u.order.Login; login != nil {
		request += "Proxy-Authorization: " + basic(login) + "\r\n"
	}
	_ = conn.SetDeadline(time.Now().Add(answerLimit))
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return nil, u.broken(err)
	}
	_ = conn.SetDeadline(time.Now().Add(limit))
	reader := bufio.NewReaderSize(conn, 4<<10)
	if begin, err := reader.Peek(5); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err
	} else if err != nil {
		return nil, u.broken(err)
	} else if string(begin) != "HTTP/" {
		return nil, unusablef("%s answers %q, which is not HTTP%s", u.order.Address, begin, socksHint(begin))
	}
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // what follows is the connection itself
	if err != nil {
		return nil, u.broken(err)
	}
	switch {
	case response.StatusCode == http.StatusProxyAuthRequired && u.order.Login != nil:
		return nil, u.badLogin(true, "")
	case response.StatusCode == http.StatusProxyAuthRequired:
		return nil, unusablef("%s wants a user and password that infra.yml does not give", u.order.Address)
	case response.StatusCode < 200 || response.StatusCode > 299:
		return nil, fmt.Errorf("the proxy does not connect to %s: %s", target, response.Status)
	}
	early, err = reader.Peek(reader.Buffered())
	return bytes.Clone(early), err
}

func basic(login *agent.ProxyLogin) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login.User+":"+login.Password.Reveal()))
}

func socksHint(answer []byte) string {
	if answer[0] == socksVersion {
		return "; is it a SOCKS5 proxy? then write socks5:// before its address"
	}
	return ""
}

func splitHostPort(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%s: the port is not a number from 1 to 65535", address)
	}
	return strings.TrimSuffix(host, "."), uint16(n), nil
}
