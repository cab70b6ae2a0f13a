package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
)

// heads is a Service whose clusters' heads the test is.
type heads struct {
	berth.Service
	head   chan net.Conn
	errs   map[string]error // by the cluster's name
	dialed berth.ClusterPort
}

func (h *heads) DialCluster(ctx context.Context, id string, port berth.ClusterPort) (net.Conn, error) {
	if err := h.errs[id]; err != nil {
		return nil, err
	}
	if id == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	h.dialed = port
	ours, theirs, err := pair(ctx)
	if err == nil {
		h.head <- theirs
	}
	return ours, err
}

// pair is a connection by TCP, which can be closed in one direction.
func pair(ctx context.Context) (a, b net.Conn, err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	var dialer net.Dialer
	if a, err = dialer.DialContext(ctx, "tcp", listener.Addr().String()); err == nil {
		b, err = listener.Accept()
	}
	return a, b, err
}

func tunnelling(t *testing.T, o HandlerOptions) (*heads, *httptest.Server) {
	t.Helper()
	h := &heads{head: make(chan net.Conn, 1), errs: map[string]error{}}
	mux := http.NewServeMux()
	mux.Handle(TunnelPath, NewTunnelHandler(h, o))
	return h, serving(t, mux)
}

// connected is a connection through a server, and its other end.
func connected(t *testing.T, h *heads, server *httptest.Server, token string) (client, head net.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // which does not end the connection
	client, err := NewClient(server.Client(), server.URL, token).DialCluster(ctx, "it", berth.ClusterScheduler)
	if err != nil {
		t.Fatal(err)
	}
	head = <-h.head
	_ = head.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { client.Close(); head.Close() })
	return client, head
}

// over waits until both ends of a connection are.
func over(t *testing.T, client, head net.Conn) {
	t.Helper()
	if n, err := head.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the head reads %d bytes, %v", n, err)
	}
	if n, err := client.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("the client reads %d bytes, %v", n, err)
	}
}

func TestBytesGoThroughATunnelBothWaysUntilEachIsClosed(t *testing.T) {
	h, server := tunnelling(t, HandlerOptions{Authenticate: onlyAnn})
	client, head := connected(t, h, server, "ann")
	if h.dialed != berth.ClusterScheduler {
		t.Errorf("connected to %s", h.dialed)
	}
	question, answer := bytes.Repeat([]byte("question"), 1<<18), bytes.Repeat([]byte("answer"), 1<<18)
	asked := make(chan error, 1)
	go func() {
		_, err := client.Write(question)
		asked <- errors.Join(err, client.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(head)
	if err = errors.Join(err, <-asked); err != nil || !bytes.Equal(got, question) {
		t.Fatalf("the head got %d bytes of %d, %v", len(got), len(question), err)
	}
	go func() {
		_, err := head.Write(answer)
		asked <- errors.Join(err, head.Close())
	}()
	got, err = io.ReadAll(client)
	if err = errors.Join(err, <-asked); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("the client got %d bytes of %d, %v", len(got), len(answer), err)
	}
}

func TestATunnelThatTheClientClosesEndsAtTheHead(t *testing.T) {
	h, server := tunnelling(t, HandlerOptions{})
	client, head := connected(t, h, server, "")
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	over(t, client, head)
}

func TestATunnelEndsWithItsServer(t *testing.T) {
	ending := make(chan struct{})
	h, server := tunnelling(t, HandlerOptions{Ending: ending})
	client, head := connected(t, h, server, "")
	close(ending)
	over(t, client, head)
	if _, err := NewClient(server.Client(), server.URL, "").DialCluster(t.Context(), "it", berth.ClusterScheduler); !errors.Is(err, ErrGone) {
		t.Errorf("another: %v", err)
	}
}

func TestATunnelEndsWhenItsTokenIsRevoked(t *testing.T) {
	valid, revoke := context.WithCancel(t.Context())
	h, server := tunnelling(t, HandlerOptions{Authenticate: func(r *http.Request) (context.Context, error) {
		ctx, cancel := context.WithCancel(r.Context())
		context.AfterFunc(valid, cancel)
		return ctx, nil
	}})
	client, head := connected(t, h, server, "")
	revoke()
	over(t, client, head)
}

func TestWhyATunnelIsRefusedKeepsItsCode(t *testing.T) {
	h, server := tunnelling(t, HandlerOptions{Authenticate: onlyAnn})
	client := NewClient(server.Client(), server.URL, "ann")
	for code := range codes {
		h.errs["it"] = berth.Errorf(code, "it is so")
		if _, err := client.DialCluster(t.Context(), "it", berth.ClusterScheduler); berth.CodeOf(err) != code || !strings.Contains(err.Error(), "it is so") || errors.Is(err, ErrGone) {
			t.Errorf("%s: %v (%s)", code, err, berth.CodeOf(err))
		}
	}
	if _, err := NewClient(server.Client(), server.URL, "eve").DialCluster(t.Context(), "it", berth.ClusterScheduler); berth.CodeOf(err) != berth.CodeUnauthorized {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := client.DialCluster(t.Context(), "it", "shell"); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("a port that there is not: %v", err)
	}
	h.errs["a/../b"] = berth.NoSuchCluster("a/../b")
	if _, err := client.DialCluster(t.Context(), "a/../b", berth.ClusterScheduler); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("an odd name: %v", err)
	}
}

func TestWhoDoesNotWaitForATunnelAnyMoreIsTold(t *testing.T) {
	_, server := tunnelling(t, HandlerOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(server.Client(), server.URL, "").DialCluster(ctx, "slow", berth.ClusterScheduler); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNoUpgradeIsTold(t *testing.T) {
	_, server := tunnelling(t, HandlerOptions{})
	old := &http.Client{Transport: server.Client().Transport.(*http.Transport).Clone()}
	old.Transport.(*http.Transport).Protocols = new(http.Protocols)
	old.Transport.(*http.Transport).Protocols.SetHTTP1(true)
	old.Transport.(*http.Transport).TLSClientConfig.NextProtos = nil
	defer old.CloseIdleConnections()
	for name, c := range map[string]struct {
		client  *http.Client
		upgrade string
		major   int
	}{"HTTP/2": {server.Client(), "", 2}, "no upgrade": {old, "", 1}, "another upgrade": {old, "websocket", 1}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+TunnelPath+"it/scheduler", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if c.upgrade != "" {
			request.Header.Set("Connection", "Upgrade")
			request.Header.Set("Upgrade", c.upgrade)
		}
		response, err := c.client.Do(request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest || response.ProtoMajor != c.major || !strings.Contains(string(text), "HTTP/1.1 with Connection: Upgrade and Upgrade: tcp") {
			t.Errorf("%s: %s %s %s", name, response.Proto, response.Status, text)
		}
	}
}

func TestWhatIsNoServerThatTunnelsIsTold(t *testing.T) {
	for status, c := range map[int]struct {
		code berth.ErrorCode
		gone bool
		says string
	}{
		http.StatusOK:         {berth.CodeInvalid, false, "let HTTP upgrades through"},
		http.StatusNotFound:   {berth.CodeInvalid, false, "let HTTP upgrades through"},
		http.StatusBadGateway: {berth.CodeUnavailable, true, "502"},
	} {
		server := serving(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>welcome</html>")
		}))
		checked := *server.Client()
		checked.Transport = CheckAnswers(checked.Transport)
		if _, err := NewClient(&checked, server.URL, "").DialCluster(t.Context(), "it", berth.ClusterScheduler); berth.CodeOf(err) != c.code || errors.Is(err, ErrGone) != c.gone || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%d: %v", status, err)
		}
	}
	server := serving(t, http.NotFoundHandler())
	server.Close()
	if _, err := NewClient(server.Client(), server.URL, "").DialCluster(t.Context(), "it", berth.ClusterScheduler); !errors.Is(err, ErrGone) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestTunnelsAreCounted(t *testing.T) {
	counted := make(chan string, 1)
	h, server := tunnelling(t, HandlerOptions{Observe: func(method, code string, _ time.Duration) { counted <- method + " " + code }})
	client, head := connected(t, h, server, "")
	client.Close()
	head.Close()
	if got := <-counted; got != "DialCluster ok" {
		t.Errorf("one that was: %s", got)
	}
	h.errs["it"] = berth.NoSuchCluster("it")
	_, err := NewClient(server.Client(), server.URL, "").DialCluster(t.Context(), "it", berth.ClusterScheduler)
	if got := <-counted; got != "DialCluster "+connect.CodeNotFound.String() {
		t.Errorf("one that was not: %s, %v", got, err)
	}
}

func TestWhatTheClientSendsBeforeItIsAnsweredIsNotLost(t *testing.T) {
	h, server := tunnelling(t, HandlerOptions{})
	dialer := tls.Dialer{Config: server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	dialer.Config.NextProtos = nil
	conn, err := dialer.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET "+TunnelPath+"it/scheduler HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello"); err != nil {
		t.Fatal(err)
	}
	head := <-h.head
	defer head.Close()
	got := make([]byte, 5)
	if _, err := io.ReadFull(head, got); err != nil || string(got) != "hello" {
		t.Errorf("the head got %q, %v", got, err)
	}
}
