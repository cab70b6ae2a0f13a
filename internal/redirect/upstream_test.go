package redirect

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// scripted is a proxy that answers each message of a client with the next of
// its own.
func scripted(t *testing.T, answers ...string) (netip.AddrPort, <-chan string) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	got := make(chan string, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 1024)
				for _, answer := range answers {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					got <- string(buffer[:n])
					_, _ = io.WriteString(conn, answer)
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String()), got
}

const connected = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"

func TestUpstreamSpeaksSOCKS5(t *testing.T) {
	for name, tt := range map[string]struct {
		login   *agent.ProxyLogin
		target  string
		answers []string
		want    []string
	}{
		"no login":          {nil, "192.0.2.1:80", []string{"\x05\x00", connected}, []string{"\x05\x02\x00\x02", "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"}},
		"a name":            {nil, "x.example:443", []string{"\x05\x00", connected}, []string{"\x05\x02\x00\x02", "\x05\x01\x00\x03\x09x.example\x01\xbb"}},
		"a login":           {&agent.ProxyLogin{User: "ada", Password: "pw"}, "192.0.2.1:80", []string{"\x05\x02", "\x01\x00", connected}, []string{"\x05\x02\x00\x02", "\x01\x03ada\x02pw", "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"}},
		"as the task":       {nil, "192.0.2.1:80", []string{"\x05\x02", "\x01\x00", connected}, []string{"\x05\x02\x00\x02", "\x01\x03d-1\x05berth", "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"}},
		"it is at a name":   {nil, "192.0.2.1:80", []string{"\x05\x00", "\x05\x00\x00\x03\x03abc\x00\x50"}, []string{"\x05\x02\x00\x02", "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"}},
		"it is at an IPv6":  {nil, "192.0.2.1:80", []string{"\x05\x00", "\x05\x00\x00\x04" + strings.Repeat("\x00", 18)}, []string{"\x05\x02\x00\x02", "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"}},
		"to an IPv6 target": {nil, "[2001:db8::1]:80", []string{"\x05\x00", connected}, []string{"\x05\x02\x00\x02", "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x00\x50"}},
	} {
		t.Run(name, func(t *testing.T) {
			address, got := scripted(t, tt.answers...)
			u := &upstream{order: &agent.Proxy{Protocol: berth.ProxySOCKS5, Address: address.String(), As: "d-1", Login: tt.login}, proxies: []netip.AddrPort{address}}
			conn, _, err := u.dial(t.Context(), tt.target)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			for i, want := range tt.want {
				if said := <-got; said != want {
					t.Errorf("message %d is %q, want %q", i, said, want)
				}
			}
		})
	}
}

// What came with an HTTP proxy's answer belongs to the connection.
func TestUpstreamSpeaksHTTP(t *testing.T) {
	address, got := scripted(t, "HTTP/1.1 200 OK\r\nX: y\r\n\r\nearly")
	u := &upstream{
		order:   &agent.Proxy{Protocol: berth.ProxyHTTP, Address: address.String(), Login: &agent.ProxyLogin{User: "ada", Password: "pw"}},
		proxies: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), address}, // the first is not there
	}
	conn, early, err := u.dial(t.Context(), "x.example:443")
	if err != nil || string(early) != "early" {
		t.Fatalf("%q, %v", early, err)
	}
	conn.Close()
	if want := "CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\nProxy-Authorization: Basic YWRhOnB3\r\n\r\n"; <-got != want {
		t.Errorf("want %q", want)
	}
}

// What is wrong with the proxy is told from what is wrong with a target.
func TestUpstreamTellsTroubleFromRefusal(t *testing.T) {
	login := &agent.ProxyLogin{User: "ada", Password: "s3cret"}
	for name, tt := range map[string]struct {
		protocol string
		login    *agent.ProxyLogin
		answers  []string
		trouble  bool
		words    string
	}{
		"SOCKS5 refuses a target":    {berth.ProxySOCKS5, nil, []string{"\x05\x00", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"}, false, "connection refused"},
		"SOCKS5 with a code of its":  {berth.ProxySOCKS5, nil, []string{"\x05\x00", "\x05\x77\x00\x01\x00\x00\x00\x00\x00\x00"}, false, "code 119"},
		"HTTP refuses a target":      {berth.ProxyHTTP, nil, []string{"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"}, false, "403 Forbidden"},
		"no method":                  {berth.ProxySOCKS5, nil, []string{"\x05\xff"}, true, "accepts neither"},
		"an odd method":              {berth.ProxySOCKS5, nil, []string{"\x05\x01"}, true, "kind 1"},
		"a wrong login":              {berth.ProxySOCKS5, login, []string{"\x05\x02", "\x01\x01"}, true, "does not accept the user and password"},
		"no login given":             {berth.ProxySOCKS5, nil, []string{"\x05\x02", "\x01\x01"}, true, "wants a user and password"},
		"HTTP where SOCKS5 is asked": {berth.ProxySOCKS5, nil, []string{"HTTP/1.1 400 Bad Request\r\n\r\n"}, true, "write http://"},
		"SOCKS5 where HTTP is asked": {berth.ProxyHTTP, nil, []string{"\x05\xff\x00\x00\x00"}, true, "write socks5://"},
		"nonsense":                   {berth.ProxyHTTP, nil, []string{"220 mail ESMTP\r\n"}, true, "which is not HTTP"},
		"it hangs up":                {berth.ProxySOCKS5, nil, nil, true, "without an answer"},
		"HTTP, a wrong login":        {berth.ProxyHTTP, login, []string{"HTTP/1.1 407 No\r\n\r\n"}, true, "does not accept the user and password"},
		"HTTP, no login given":       {berth.ProxyHTTP, nil, []string{"HTTP/1.1 407 No\r\n\r\n"}, true, "wants a user and password"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := scripted(t, tt.answers...)
			u := &upstream{order: &agent.Proxy{Protocol: tt.protocol, Address: address.String(), As: "d-1", Login: tt.login}, proxies: []netip.AddrPort{address}}
			_, _, err := u.dial(t.Context(), "192.0.2.1:80")
			var wrong *unusable
			if err == nil || errors.As(err, &wrong) != tt.trouble || !strings.Contains(err.Error(), tt.words) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v (trouble: %v)", err, wrong != nil)
			}
		})
	}
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	u := &upstream{order: &agent.Proxy{Protocol: berth.ProxySOCKS5, Address: "proxy.example:1"}, proxies: []netip.AddrPort{closed}}
	if err := u.check(t.Context()); err == nil || err.Error() != "proxy.example:1 can't be reached: connection refused" {
		t.Errorf("%v", err)
	}
}

func TestUpstreamEndsWithItsContext(t *testing.T) {
	address, got := scripted(t, "") // it reads, and never answers
	u := &upstream{order: &agent.Proxy{Protocol: berth.ProxyHTTP, Address: address.String()}, proxies: []netip.AddrPort{address}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.check(ctx) }()
	<-got
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it was taken for usable")
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}
