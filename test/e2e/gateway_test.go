//go:build e2e

package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// gateway is a proxy of this machine for the tasks of a cluster: SOCKS5 (RFC
// 1928, 1929) or HTTP. It can be told to misbehave.
type gateway struct {
	t        *testing.T
	address  string
	http     bool
	login    string // USER:PASSWORD; empty: none is asked for
	anybody  bool   // asks SOCKS5 clients for a login, and takes any
	listener net.Listener

	mu       sync.Mutex
	resolver string // in place of whatever is asked for at port 53
	mode     string // "": as it should; "hang", "garbage", "close"
	targets  map[string]int
	users    map[string]int
	conns    map[net.Conn]bool
}

func newGateway(t *testing.T, change func(*gateway)) *gateway {
	t.Helper()
	host := hostIP(t)
	g := &gateway{t: t, address: host + ":" + freePort(t, host), targets: map[string]int{}, users: map[string]int{}, conns: map[net.Conn]bool{}}
	if change != nil {
		change(g)
	}
	g.begin()
	t.Cleanup(g.end)
	return g
}

// behave has it answer as its mode says from now on.
func (g *gateway) behave(mode string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = mode
}

// resolve has the proxy connect whoever asks for the cluster's resolver to one
// that knows a name.
func (g *gateway) resolve(name, address string) {
	g.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answerDNS(conn, name, address)
		}
	}()
	g.mu.Lock()
	g.resolver = listener.Addr().String()
	g.mu.Unlock()
}

// answerDNS serves a connection, where messages have their length before them.
func answerDNS(conn net.Conn, name, address string) {
	defer conn.Close()
	for {
		var size uint16
		if binary.Read(conn, binary.BigEndian, &size) != nil {
			return
		}
		question := make([]byte, size)
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		answer := answerTo(question, name, address)
		if answer == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answerTo is the answer of a resolver that knows one name; nil to what is no question.
func answerTo(question []byte, name, address string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) == 0 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, dnsmessage.RCodeNameError, nil
	if q := m.Questions[0]; strings.TrimSuffix(q.Name.String(), ".") == name {
		m.RCode = dnsmessage.RCodeSuccess
		if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()},
			}}
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}

// begin listens; end ends that and every connection.
func (g *gateway) begin() {
	g.t.Helper()
	var err error
	if g.listener, err = net.Listen("tcp", g.address); err != nil {
		g.t.Fatal(err)
	}
	listener := g.listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.serve(conn)
		}
	}()
}

func (g *gateway) end() {
	g.listener.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.conns {
		conn.Close()
	}
	clear(g.conns)
}

// saw returns how often a target was asked for; sawUser, by whom.
func (g *gateway) saw(target string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.targets[target]
}

func (g *gateway) seen() (targets, users []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for target := range g.targets {
		targets = append(targets, target)
	}
	for user := range g.users {
		users = append(users, user)
	}
	return targets, users
}

func (g *gateway) serve(conn net.Conn) {
	defer conn.Close()
	g.mu.Lock()
	g.conns[conn] = true
	mode := g.mode
	g.mu.Unlock()
	defer func() { g.mu.Lock(); delete(g.conns, conn); g.mu.Unlock() }()
	switch mode {
	case "hang":
		_, _ = io.Copy(io.Discard, conn)
		return
	case "garbage":
		_, _ = io.WriteString(conn, "220 mail.example ESMTP\r\n")
		_, _ = io.Copy(io.Discard, conn)
		return
	case "close":
		return
	}
	reader := bufio.NewReader(conn)
	if g.http {
		g.serveHTTP(conn, reader)
		return
	}
	g.serveSOCKS(conn, reader)
}

func (g *gateway) serveSOCKS(conn net.Conn, reader *bufio.Reader) {
	read := func(n int) []byte { b := make([]byte, n); _, _ = io.ReadFull(reader, b); return b }
	read(int(read(2)[1]))
	if g.login != "" || g.anybody {
		_, _ = conn.Write([]byte{5, 2})
		user := string(read(int(read(2)[1])))
		password := string(read(int(read(1)[0])))
		g.mu.Lock()
		g.users[user]++
		g.mu.Unlock()
		if !g.anybody && user+":"+password != g.login {
			_, _ = conn.Write([]byte{1, 1})
			return
		}
		_, _ = conn.Write([]byte{1, 0})
	} else {
		_, _ = conn.Write([]byte{5, 0})
	}
	head, err := reader.Peek(4)
	if err != nil {
		return
	}
	kind := head[3]
	read(4)
	var host string
	switch kind {
	case 1:
		host = net.IP(read(4)).String()
	case 3:
		host = string(read(int(read(1)[0])))
	}
	port := read(2)
	server := g.dial(net.JoinHostPort(host, strconv.Itoa(int(port[0])<<8|int(port[1]))))
	if server == nil {
		_, _ = conn.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	join(conn, reader, server)
}

func (g *gateway) serveHTTP(conn net.Conn, reader *bufio.Reader) {
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	given, _ := strings.CutPrefix(request.Header.Get("Proxy-Authorization"), "Basic ")
	login, _ := base64.StdEncoding.DecodeString(given)
	user, _, _ := strings.Cut(string(login), ":")
	g.mu.Lock()
	g.users[user]++
	g.mu.Unlock()
	if g.login != "" && string(login) != g.login {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if request.Method == http.MethodConnect {
		server := g.dial(request.Host)
		if server == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		join(conn, reader, server)
		return
	}
	server := g.dial(request.URL.Host)
	if server == nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer server.Close()
	request.Header.Del("Proxy-Authorization")
	request.Close = true
	_ = request.Write(server)
	_, _ = io.Copy(conn, server)
}

// dial connects for a client, and takes note of where to.
func (g *gateway) dial(target string) net.Conn {
	g.mu.Lock()
	g.targets[target]++
	if g.resolver != "" && strings.HasSuffix(target, ":53") {
		target = g.resolver
	}
	g.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return nil
	}
	return server
}

func join(conn net.Conn, reader io.Reader, server net.Conn) {
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, reader)
		if tcp, ok := server.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	_, _ = io.Copy(conn, server)
}
