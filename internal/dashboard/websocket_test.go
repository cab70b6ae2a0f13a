package dashboard

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/websocket"

	"github.com/berth-run/berth"
)

// echoing is the head of a cluster whose pages repeat what they hear, and note
// what they were asked with.
func echoing(asked chan<- http.Header) http.Handler {
	return websocket.Server{
		Handshake: func(c *websocket.Config, r *http.Request) error {
			c.Protocol = c.Protocol[:1] // as Bokeh does, whose second one is its own token
			if asked != nil {
				asked <- r.Header.Clone()
			}
			return nil
		},
		Handler: func(conn *websocket.Conn) {
			for {
				var heard string
				if websocket.Message.Receive(conn, &heard) != nil || websocket.Message.Send(conn, heard) != nil {
					return
				}
			}
		},
	}
}

// open opens a websocket as a page does.
func open(ctx context.Context, dial func(context.Context) (net.Conn, error), path, origin string, session headers) (*websocket.Conn, error) {
	config, err := websocket.NewConfig("ws://"+host+path, origin)
	if err != nil {
		return nil, err
	}
	config.Protocol = []string{"bokeh", "eyJzZXNzaW9uX2lkIjoieCJ9"}
	config.Header = http.Header{"Sec-Fetch-Mode": {"websocket"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"empty"}}
	if session != nil {
		config.Header.Set(session[0], session[1])
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		_ = conn.Close()
	}
	return ws, err
}

func repeats(ws *websocket.Conn, word string) bool {
	var got string
	return websocket.Message.Send(ws, word) == nil && websocket.Message.Receive(ws, &got) == nil && got == word
}

func TestPagesHearAndSayByWebsocket(t *testing.T) {
	asked := make(chan http.Header, 1)
	c := given(t, echoing(asked))
	front := httptest.NewServer(c.handler)
	defer front.Close()
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", front.Listener.Addr().String())
	}
	session := c.loggedIn(t, mine, annsToken)

	ws, err := open(t.Context(), dial, "/"+mine+"/status/ws", "http://"+host, session)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	for _, word := range []string{"hello", strings.Repeat("much ", 5000), "", "the end"} {
		if !repeats(ws, word) {
			t.Errorf("the cluster does not hear %.10q, or is not heard", word)
		}
	}
	header := <-asked
	if header.Get("Cookie") != "" || header.Get("Sec-Websocket-Protocol") == "" || header.Get("Origin") != "http://"+host {
		t.Errorf("the cluster was asked with %v", header)
	}
	for name, test := range map[string]struct {
		path, origin string
		session      headers
	}{
		"without a session":           {"/" + mine + "/status/ws", "http://" + host, nil},
		"of another origin":           {"/" + mine + "/status/ws", "http://evil.example", session},
		"to another cluster":          {"/" + yours + "/status/ws", "http://" + host, session},
		"to what is no dashboard":     {"/" + mine + "/api/ws", "http://" + host, session},
		"by a session that is forged": {"/" + mine + "/status/ws", "http://" + host, headers{"Cookie", "berth-dashboard=AAAA"}},
	} {
		if ws, err := open(t.Context(), dial, test.path, test.origin, test.session); err == nil {
			ws.Close()
			t.Errorf("a websocket %s was opened", name)
		}
	}
}

func TestWebsocketsEndWithTheirSession(t *testing.T) {
	for _, test := range []struct {
		name   string
		ends   func(*clusters, headers)
		within time.Duration
	}{
		{"when the token is revoked", func(c *clusters, _ headers) { c.revoke(annsToken) }, recheckInterval},
		{"when somebody logs out", func(c *clusters, session headers) {
			c.ask(http.MethodPost, "/"+mine+"/logout", session)
		}, recheckInterval},
		{"when its time is over", func(*clusters, headers) {}, sessionTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := given(t, echoing(nil))
				front := serve(t, c.handler)
				session := c.loggedIn(t, mine, annsToken)
				ws, err := open(t.Context(), front.dial, "/"+mine+"/status/ws", "http://"+host, session)
				if err != nil {
					t.Fatal(err)
				}
				defer ws.Close()
				time.Sleep(10 * recheckInterval)
				if !repeats(ws, "hello") {
					t.Fatal("it ended before")
				}
				test.ends(c, session)
				began := time.Now()
				var got string
				if err := websocket.Message.Receive(ws, &got); err == nil {
					t.Errorf("it goes on with %q", got)
				}
				if took := time.Since(began); took > test.within {
					t.Errorf("it ended after %s", took)
				}
			})
		})
	}
}

func TestWebsocketsOutliveAStoreOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := given(t, echoing(nil))
		front := serve(t, c.handler)
		ws, err := open(t.Context(), front.dial, "/"+mine+"/status/ws", "http://"+host, c.loggedIn(t, mine, annsToken))
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		c.breaks(berth.Errorf(berth.CodeUnavailable, "the database does not answer"))
		time.Sleep(5 * recheckInterval)
		if !repeats(ws, "hello") {
			t.Error("it ended")
		}
	})
}

func TestWebsocketsEndWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := given(t, echoing(nil))
		base, stop := context.WithCancel(t.Context())
		front := newMemory()
		server := &http.Server{Handler: c.handler, BaseContext: func(net.Listener) context.Context { return base }}
		defer server.Close()
		go func() { _ = server.Serve(front) }()
		ws, err := open(t.Context(), front.dial, "/"+mine+"/status/ws", "http://"+host, c.loggedIn(t, mine, annsToken))
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		stop()
		var got string
		if err := websocket.Message.Receive(ws, &got); err == nil {
			t.Errorf("it goes on with %q", got)
		}
	})
}
