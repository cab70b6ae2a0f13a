package rpc

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

const offerPrefix = "/callback/clusters/"

// offering serves heads; what they open comes through the channel.
func offering(t *testing.T, serve func(*httptest.Server)) (*httptest.Server, chan net.Conn) {
	t.Helper()
	offered := make(chan net.Conn, 4)
	admit := func(_ context.Context, token, cluster string) error {
		switch {
		case token != "its token":
			return berth.Errorf(berth.CodeUnauthorized, "no")
		case cluster == "gone":
			return berth.NoSuchCluster(cluster)
		case cluster == "trouble":
			return berth.Errorf(berth.CodeUnavailable, "no store")
		}
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle(offerPrefix, NewOfferHandler(offerPrefix, admit, func(_ string, conn net.Conn) { offered <- conn }))
	server := httptest.NewUnstartedServer(mux)
	serve(server)
	t.Cleanup(server.Close)
	return server, offered
}

// asked sends what a head asks with, and reads the answer's headers.
func asked(t *testing.T, conn net.Conn, path, token string) *http.Response {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	request := "GET " + path + " HTTP/1.1\r\nHost: it\r\nAuthorization: Bearer " + token + "\r\nConnection: Upgrade\r\nUpgrade: berth-tunnel\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(oneByOne{conn}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// oneByOne reads nothing behind what is asked for.
type oneByOne struct{ io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.Reader.Read(p[:1]) }

func trusting(server *httptest.Server) *tls.Config {
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com" // as its certificate says
	return config
}

func dialed(t *testing.T, server *httptest.Server) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// exchanged sends both ways between the ends of a connection.
func exchanged(t *testing.T, head, server net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{server, head}, {head, server}} {
		if _, err := io.WriteString(way[0], "words"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "words" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestAHeadsConnectionGoesOnBelowTLS(t *testing.T) {
	server, offered := offering(t, (*httptest.Server).StartTLS)
	below := dialed(t, server)
	conn := tls.Client(below, trusting(server))
	response := asked(t, conn, offerPrefix+"it", "its token")
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get(offerHeader) != "plain" {
		t.Fatalf("%v", response)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // it is never wrapped
		t.Fatalf("TLS ends with %d bytes, %v", n, err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = below.SetDeadline(time.Now().Add(20 * time.Second))
	ours := <-offered
	if _, ok := ours.(*net.TCPConn); !ok {
		t.Errorf("what is left is a %T", ours)
	}
	exchanged(t, below, ours)
}

func TestAHeadWithoutTLSGoesOnAsItIs(t *testing.T) {
	server, offered := offering(t, (*httptest.Server).Start)
	conn := dialed(t, server)
	response := asked(t, conn, offerPrefix+"it", "its token")
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get(offerHeader) != "as-is" {
		t.Fatalf("%v", response)
	}
	exchanged(t, conn, <-offered)
}

func TestAHeadThatGoesOnWithTLSIsLetGo(t *testing.T) {
	server, offered := offering(t, (*httptest.Server).StartTLS)
	conn := tls.Client(dialed(t, server), trusting(server))
	asked(t, conn, offerPrefix+"it", "its token")
	if _, err := io.WriteString(conn, "not what was agreed"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(conn.NetConn()) // until it is closed
	select {
	case <-offered:
		t.Error("it is offered to clients")
	default:
	}
}

func TestWhoIsNoHeadIsRefused(t *testing.T) {
	server, offered := offering(t, (*httptest.Server).Start)
	for name, tt := range map[string]struct {
		cluster, token string
		want           int
	}{
		"with another token":     {"it", "another", http.StatusUnauthorized},
		"with no token":          {"it", "", http.StatusUnauthorized},
		"of a cluster that went": {"gone", "its token", http.StatusGone},
		"while there is trouble": {"trouble", "its token", http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			if got := asked(t, dialed(t, server), offerPrefix+tt.cluster, tt.token); got.StatusCode != tt.want {
				t.Errorf("%s, want %d", got.Status, tt.want)
			}
		})
	}
	response, err := server.Client().Get(server.URL + offerPrefix + "it")
	if err != nil || response.StatusCode != http.StatusUpgradeRequired || response.Header.Get("Upgrade") != offerProtocol {
		t.Errorf("without an upgrade: %v, %v", response, err)
	}
	if len(offered) > 0 {
		t.Error("one is offered to clients")
	}
}

// A client that ends TLS and one that doesn't know that come to the same head.
func TestATunnelGoesOnBelowTLSWhereBothSidesKnowIt(t *testing.T) {
	h := &heads{head: make(chan net.Conn, 1), errs: map[string]error{}}
	mux := http.NewServeMux()
	mux.Handle(TunnelPath, NewTunnelHandler(h, HandlerOptions{}))
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	for _, port := range []berth.ClusterPort{berth.ClusterScheduler, berth.ClusterDashboard} {
		client, err := NewClient(server.Client(), server.URL, "").DialCluster(t.Context(), "it", port)
		if err != nil {
			t.Fatal(err)
		}
		head := <-h.head
		_ = head.SetDeadline(time.Now().Add(20 * time.Second))
		if left := bare(client) != nil; left != (port == berth.ClusterScheduler) { // the dashboard has no TLS of its own
			t.Errorf("%s: below TLS: %v", port, left)
		}
		go func() { _, _ = io.WriteString(client, "wordswords") }()
		got := make([]byte, 10)
		if _, err := io.ReadFull(head, got); err != nil || string(got) != "wordswords" {
			t.Fatalf("%s: %q, %v", port, got, err)
		}
		exchanged(t, head, client)
		_, _ = client.Close(), head.Close()
	}

	older := tls.Client(dialed(t, server), trusting(server))
	_ = older.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(older, "GET "+TunnelPath+"it/scheduler HTTP/1.1\r\nHost: it\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(oneByOne{older}), nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get(belowHeader) == "" {
		t.Fatalf("%v, %v", response, err)
	}
	go func() { _, _ = io.WriteString(older, "words") }()
	head := <-h.head
	got := make([]byte, 5)
	if _, err := io.ReadFull(head, got); err != nil || string(got) != "words" {
		t.Fatalf("%q, %v", got, err)
	}
	exchanged(t, head, older)
}

// A proxy that ends TLS and speaks its own to the server is no reason to end any.
func TestATunnelThroughATLSProxyStaysInTLS(t *testing.T) {
	h := &heads{head: make(chan net.Conn, 1), errs: map[string]error{}}
	mux := http.NewServeMux()
	mux.Handle(TunnelPath, NewTunnelHandler(h, HandlerOptions{}))
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	between, err := tls.Listen("tcp", "127.0.0.1:0", server.TLS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = between.Close() })
	go func() {
		for {
			in, err := between.Accept()
			if err != nil {
				return
			}
			out, err := tls.Dial("tcp", server.Listener.Addr().String(), trusting(server))
			if err != nil {
				_ = in.Close()
				return
			}
			go Pipe(in, out)
		}
	}()
	where := strings.Replace(server.URL, server.Listener.Addr().String(), between.Addr().String(), 1)
	client, err := NewClient(server.Client(), where, "").DialCluster(t.Context(), "it", berth.ClusterScheduler)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if bare(client) != nil {
		t.Error("TLS was ended with the proxy")
	}
	go func() { _, _ = io.WriteString(client, "words") }()
	head := <-h.head
	_ = head.SetDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, 5)
	if _, err := io.ReadFull(head, got); err != nil || string(got) != "words" {
		t.Fatalf("%q, %v", got, err)
	}
	exchanged(t, head, client)
}

// A proxy that only passes TLS on may still look at what it passes.
func TestATunnelThroughAnHTTPProxyStaysInTLS(t *testing.T) {
	h := &heads{head: make(chan net.Conn, 1), errs: map[string]error{}}
	mux := http.NewServeMux()
	mux.Handle(TunnelPath, NewTunnelHandler(h, HandlerOptions{}))
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	passed := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		passed <- r.Method
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		Pipe(in, out)
	}))
	t.Cleanup(proxy.Close)
	where, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	through := server.Client().Transport.(*http.Transport).Clone()
	through.Proxy = http.ProxyURL(where)
	client, err := NewClient(&http.Client{Transport: through}, server.URL, "").DialCluster(t.Context(), "it", berth.ClusterScheduler)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if method := <-passed; method != http.MethodConnect || bare(client) != nil {
		t.Errorf("%s; below TLS: %v", method, bare(client))
	}
	go func() { _, _ = io.WriteString(client, "words") }()
	head := <-h.head
	_ = head.SetDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, 5)
	if _, err := io.ReadFull(head, got); err != nil || string(got) != "words" {
		t.Fatalf("%q, %v", got, err)
	}
	exchanged(t, head, client)
}
