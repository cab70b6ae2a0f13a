package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// SOCKS5 (RFC 1928) and its login (RFC 1929).
const (
	socksVersion  = 5
	socksNoLogin  = 0
	socksLogin    = 2
	socksNone     = 0xff
	socksIPv4     = 1
	socksName     = 3
	socksIPv6     = 4
	loginVersion  = 1
	socksConnects = 1
)

var socksRefusals = []string{"", "general failure", "not allowed by its rules", "network unreachable", "host unreachable", "connection refused", "TTL expired", "command not supported", "address type not supported"}

// socksGreet agrees upon a login.
func (u *upstream) socksGreet(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(answerLimit))
	if _, err := conn.Write([]byte{socksVersion, 2, socksNoLogin, socksLogin}); err != nil {
		return u.broken(err)
	}
	var answer [2]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return u.broken(err)
	}
	switch {
	case answer[0] != socksVersion:
		return unusablef("%s answers %q, which is not SOCKS5%s", u.order.Address, answer[:], httpHint(answer[:]))
	case answer[1] == socksNoLogin:
		return nil
	case answer[1] == socksNone:
		return unusablef("%s accepts neither no login nor one by user and password", u.order.Address)
	case answer[1] != socksLogin:
		return unusablef("%s asks for a login of kind %d, which was not offered", u.order.Address, answer[1])
	}
	user, password, given := u.order.As, "berth", false
	if login := u.order.Login; login != nil {
		user, password, given = login.User, login.Password.Reveal(), true
	}
	if len(user) > 255 || len(password) > 255 {
		return unusablef("the user or the password is longer than the 255 bytes that SOCKS5 takes")
	}
	request := append([]byte{loginVersion, byte(len(user))}, user...)
	request = append(append(request, byte(len(password))), password...)
	if _, err := conn.Write(request); err != nil {
		return u.broken(err)
	}
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return u.broken(err)
	}
	if answer[1] != 0 {
		return u.badLogin(given, user)
	}
	return nil
}

func (u *upstream) badLogin(given bool, user string) error {
	if given {
		return unusablef("%s does not accept the user and password that infra.yml gives", u.order.Address)
	}
	return unusablef("%s wants a user and password that infra.yml does not give (it did not accept %s)", u.order.Address, user)
}

func httpHint(answer []byte) string {
	if bytes.HasPrefix(answer, []byte("HT")) {
		return "; is it an HTTP proxy? then write http:// before its address"
	}
	return ""
}

func (u *upstream) socksConnect(conn net.Conn, target string) error {
	host, port, err := splitHostPort(target)
	if err != nil {
		return err
	}
	request := []byte{socksVersion, socksConnects, 0}
	switch ip, err := netip.ParseAddr(host); {
	case err == nil && ip.Unmap().Is4():
		address := ip.Unmap().As4()
		request = append(append(request, socksIPv4), address[:]...)
	case err == nil:
		address := ip.As16()
		request = append(append(request, socksIPv6), address[:]...)
	case len(host) > 255:
		return fmt.Errorf("the name %.40s... is longer than SOCKS5 takes", host)
	default:
		request = append(append(request, socksName, byte(len(host))), host...)
	}
	request = append(request, byte(port>>8), byte(port))
	_ = conn.SetDeadline(time.Now().Add(connectLimit))
	if _, err := conn.Write(request); err != nil {
		return u.broken(err)
	}
	var head [5]byte // with the first byte of the address, which may be its length
	if _, err := io.ReadFull(conn, head[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	} else if err != nil {
		return u.broken(err)
	}
	if head[0] != socksVersion {
		return unusablef("%s answers %q, which is not SOCKS5", u.order.Address, head[:])
	}
	rest := map[byte]int{socksIPv4: net.IPv4len - 1, socksIPv6: net.IPv6len - 1, socksName: int(head[4])}[head[3]] + 2
	if _, err := io.ReadFull(conn, make([]byte, rest)); err != nil {
		return u.broken(err)
	}
	if code := int(head[1]); code != 0 {
		text := fmt.Sprintf("code %d", code)
		if code < len(socksRefusals) {
			text = socksRefusals[code]
		}
		return fmt.Errorf("the proxy does not connect to %s: %s", target, text)
	}
	return nil
}
