package redirect

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// socks makes the tunnel that a program asks for by SOCKS5.
func (l *local) socks(conn *net.TCPConn) {
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	reader := bufio.NewReaderSize(conn, 1<<10)
	target, err := socksRequest(conn, reader)
	_ = conn.SetReadDeadline(time.Time{})
	if err != nil {
		conn.Close()
		return
	}
	l.open(context.Background(), conn, target, reader, func(err error) error {
		code := byte(0)
		if err != nil {
			code = 1
		}
		_, failed := conn.Write([]byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
		return failed
	})
}

func socksRequest(conn io.Writer, reader *bufio.Reader) (target string, err error) {
	read := func(n int) []byte {
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(reader, b)
		}
		return b
	}
	read(int(read(2)[1]))
	if err == nil {
		_, err = conn.Write([]byte{socksVersion, socksNoLogin})
	}
	head := read(4)
	var host string
	switch head[3] {
	case socksIPv4:
		host = netip.AddrFrom4([4]byte(read(4))).String()
	case socksIPv6:
		host = netip.AddrFrom16([16]byte(read(16))).String()
	case socksName:
		host = string(read(int(read(1)[0])))
	}
	port := read(2)
	switch {
	case err != nil:
		return "", err
	case head[1] != socksConnects || host == "":
		_, _ = conn.Write([]byte{socksVersion, 7, 0, socksIPv4, 0, 0, 0, 0, 0, 0}) // command not supported
		return "", errors.New("not a request for a connection")
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port[0])<<8|int(port[1]))), nil
}
