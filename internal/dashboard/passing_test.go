package dashboard

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

func TestOnlyPagesOfDashboardsPass(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	session := c.loggedIn(t, mine, annsToken)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/status", 200},
		{"HEAD", "/status", 200},
		{"GET", "/status/ws?bokeh-session-id=x", 200},
		{"GET", "/status/autoload.js", 200},
		{"GET", "/individual-task-stream", 200},
		{"GET", "/individual-plots.json", 200},
		{"GET", "/info/main/workers.html", 200},
		{"GET", "/info/task/('a%2F..%2Fb',%200).html", 200},
		{"GET", "/json/counts.json", 200},
		{"GET", "/static/js/bokeh.min.js?v=1", 200},
		{"GET", "/statics/css/base.css", 200},
		{"GET", "/statics//css/base.css", 200},
		{"GET", "/sitemap.json", 200},
		{"GET", "/metrics", 200},

		// what controls a cluster
		{"GET", "/api/v1/get_workers", 403},
		{"GET", "/api", 403},
		{"POST", "/api/v1/retire_workers", 405},
		{"GET", "/berth/state", 403},
		{"POST", "/berth/drain", 405},
		{"GET", "/proxy/22/169.254.169.254/latest", 403},
		{"GET", "/jupyter/lab", 403},
		{"GET", "/anything", 403},
		{"GET", "/statusx", 403},
		{"GET", "/STATUS", 403},

		// the same by another name
		{"GET", "/%61pi/v1/get_workers", 403},
		{"GET", "/api%2fv1/get_workers", 403},
		{"GET", "//api/v1/get_workers", 403},
		{"GET", "/%2fapi/v1/get_workers", 403},
		{"GET", "/status/../api/v1/get_workers", 404},
		{"GET", "/status/%2e%2E/api/v1/get_workers", 404},
		{"GET", "/./api/v1/get_workers", 404},
		{"GET", "/status/..%5capi/v1/get_workers", 200}, // one name with a backslash in it, for who reads URLs as browsers do
		{"GET", "/;/api/v1/get_workers", 403},

		// what changes something
		{"POST", "/status", 405},
		{"PUT", "/statics/x", 405},
		{"DELETE", "/json/counts.json", 405},
		{"OPTIONS", "/status", 405},
		{"BERTH", "/status", 405},
	} {
		r := httptest.NewRequest(test.method, "http://"+host+"/"+mine+test.path, http.NoBody)
		r.Header.Set(session[0], session[1])
		w := httptest.NewRecorder()
		before := len(c.dials())
		c.handler.ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, w.Code, test.status)
		}
		passed := strings.HasPrefix(w.Body.String(), test.method+" /"+mine+test.path)
		if want := test.status == http.StatusOK; test.method == "GET" && passed != want {
			t.Errorf("%s %s: it passed: %t; %s", test.method, test.path, passed, w.Body)
		}
		if test.status != http.StatusOK && len(c.dials()) != before {
			t.Errorf("%s %s: the cluster was connected to", test.method, test.path)
		}
	}
}

func TestAddressesOfNoCluster(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	for path, want := range map[string]string{
		"/":                           "200 ",
		"/" + mine:                    "302 /" + mine + "/status",
		"/" + mine + "/":              "302 /" + mine + "/status",
		"/" + mine + "/login":         "302 /" + mine + "/status",
		"/favicon.ico":                "404 ",
		"/robots.txt":                 "404 ",
		"/status":                     "404 ",
		"/kshort/status":              "404 ",
		"/K" + mine[1:] + "/status":   "404 ",
		"/k" + strings.Repeat("/", 3): "404 ",
		"//" + mine + "/status":       "404 ",
		"/../" + mine + "/status":     "404 ",
		"/%6b" + mine[1:] + "/status": "404 ",
		"/k1234567890123456.89/x":     "404 ",
	} {
		res := c.ask(http.MethodGet, path, navigation)
		if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if res := c.ask(http.MethodPost, "/"+mine); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", res.Status)
	}
	for _, bad := range []string{"[::1]:8788", "a;script-src *", "a,b", "'none'", "*", ""} {
		if res := c.ask(http.MethodGet, "/"+mine+"/status", headers{"Host", bad}); res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("host %q: %s", bad, res.Status)
		}
	}
}

func TestClustersLearnNoSecrets(t *testing.T) {
	var got http.Header
	var gotHost, body string
	c := given(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, gotHost = r.Header.Clone(), r.Host
		b, _ := io.ReadAll(r.Body)
		body = string(b)
	}))
	session := c.loggedIn(t, mine, annsToken)
	r := c.request(http.MethodGet, "/"+mine+"/status", strings.NewReader("a body"), headers{
		"Cookie", session[1] + "; other=1", "Authorization", "Bearer " + annsToken, "Proxy-Authorization", "Basic eA==",
		"X-Auth-Request-Access-Token", "secret", "X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1",
		"Referer", "http://" + host + "/" + mine + "/workers?secret", "Sec-Fetch-Site", "same-origin", "Te", "trailers",
		"Accept", "text/html", "Accept-Encoding", "gzip", "Accept-Language", "en", "If-None-Match", `"1"`, "Range", "bytes=0-1", "User-Agent", "Mozilla/5.0",
	})
	c.handler.ServeHTTP(httptest.NewRecorder(), r)
	want := http.Header{"Accept": {"text/html"}, "Accept-Encoding": {"gzip"}, "Accept-Language": {"en"}, "If-None-Match": {`"1"`}, "Range": {"bytes=0-1"}, "User-Agent": {"Mozilla/5.0"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers that passed (-want +got):\n%s", diff)
	}
	if gotHost != host || body != "" {
		t.Errorf("the cluster got host %q and body %q", gotHost, body)
	}
}

func TestAnswersSpeakForTheirClusterAlone(t *testing.T) {
	c := given(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nSet-Cookie: early=1\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nEtag: \"1\"\r\nTransfer-Encoding: chunked\r\nTrailer: Late\r\nConnection: close\r\n"+
			"Set-Cookie: berth-dashboard=stolen; Path=/\r\nClear-Site-Data: \"cookies\"\r\nAlt-Svc: h3=\"evil.example:443\"\r\nService-Worker-Allowed: /\r\n"+
			"Access-Control-Allow-Origin: *\r\nLink: </x>; rel=preload\r\nRefresh: 0; url=/\r\nWWW-Authenticate: Basic realm=\"token\"\r\n"+
			"Content-Security-Policy: default-src *\r\nCross-Origin-Opener-Policy: unsafe-none\r\nX-Frame-Options: ALLOW\r\nStrict-Transport-Security: max-age=1\r\n"+
			"Cache-Control: public, max-age=999999\r\nSourceMap: /x\r\nServer: Tornado\r\n\r\n"+
			"5\r\nhello\r\n0\r\nLate: 1\r\nSet-Cookie: late=1\r\n\r\n")
	}))
	session := c.loggedIn(t, mine, annsToken)
	res := c.ask(http.MethodGet, "/"+mine+"/status", navigation, session)
	if body := text(t, res); res.StatusCode != http.StatusOK || body != "hello" {
		t.Fatalf("%s %q", res.Status, body)
	}
	want := http.Header{
		"Content-Type": {"text/html"}, "Etag": {`"1"`}, "Cache-Control": {"no-store"},
		"Content-Security-Policy": {policyOf(c.handler.siteOf(host), mine)},
		"X-Frame-Options":         {"DENY"}, "X-Content-Type-Options": {"nosniff"}, "Referrer-Policy": {"same-origin"}, "X-Robots-Tag": {"noindex"},
		"Cross-Origin-Opener-Policy": {"same-origin"}, "Cross-Origin-Resource-Policy": {"same-origin"}, "Origin-Agent-Cluster": {"?1"},
		"Permissions-Policy": res.Header["Permissions-Policy"],
	}
	if diff := cmp.Diff(want, res.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if len(res.Trailer) > 0 {
		t.Errorf("trailers: %v", res.Trailer)
	}
}

func TestThePolicyIsForTheClustersOwnPath(t *testing.T) {
	for _, test := range []struct {
		name string
		site site
		want string
	}{
		{"one origin for all", site{origin: "http://127.0.0.1:8788"}, "default-src 'none'; " +
			"script-src 'unsafe-inline' 'unsafe-eval' http://127.0.0.1:8788/ID/; style-src 'unsafe-inline' http://127.0.0.1:8788/ID/; " +
			"img-src data: blob: http://127.0.0.1:8788/ID/; font-src data: http://127.0.0.1:8788/ID/; connect-src http://127.0.0.1:8788/ID/ ws://127.0.0.1:8788/ID/; " +
			"worker-src 'none'; frame-src 'none'; object-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; " +
			"sandbox allow-scripts allow-same-origin allow-downloads"},
		{"an origin for each, by TLS", site{origin: "https://ID.example.org", own: true}, "default-src 'none'; " +
			"script-src 'unsafe-inline' 'unsafe-eval' https://ID.example.org/ID/; style-src 'unsafe-inline' https://ID.example.org/ID/; " +
			"img-src data: blob: https://ID.example.org/ID/; font-src data: https://ID.example.org/ID/; connect-src https://ID.example.org/ID/ wss://ID.example.org/ID/; " +
			"worker-src 'none'; frame-src 'none'; object-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"},
	} {
		if diff := cmp.Diff(test.want, policyOf(test.site, "ID")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestWhatBrowsersKeepOfAClusterIsAskedForAgain(t *testing.T) {
	for kind, want := range map[string]string{
		"text/html; charset=utf-8": "no-store",
		"application/json":         "no-store",
		"":                         "no-store",
		"text/javascript":          "private, no-cache",
		"image/png":                "private, no-cache",
	} {
		c := given(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{kind}
			w.Header().Set("Cache-Control", "public, max-age=1000000")
		}))
		res := c.ask(http.MethodGet, "/"+mine+"/static/x", c.loggedIn(t, mine, annsToken))
		if got := res.Header["Cache-Control"]; len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, want %q", kind, got, want)
		}
	}
}

func TestRedirectsStayInTheirCluster(t *testing.T) {
	at := "/" + mine
	for location, want := range map[string]string{
		at + "/status":                            at + "/status",
		"main/workers.html?a=b#c":                 at + "/info/main/workers.html?a=b#c",
		"../status":                               at + "/status",
		"http://" + host + at + "/status":         at + "/status",
		"//" + host + at + "/status":              at + "/status",
		at + "/info/task/a%2Fb.html":              at + "/info/task/a%2Fb.html",
		"/" + yours + "/status":                   "",
		"../../" + yours + "/status":              "",
		at + "/../" + yours + "/status":           "",
		at + "/%2e%2e/" + yours + "/status":       "",
		at + "/.%2E/" + yours + "/status":         "",
		at + "/status/..\\..\\" + yours:           "",
		"\\\\evil.example/":                       "",
		"https://evil.example" + at + "/status":   "",
		"//evil.example" + at + "/status":         "",
		"http://" + host + ":81" + at + "/status": "",
		"http://ann@" + host + at + "/status":     "",
		"javascript:alert(1)":                     "",
		"data:text/html,x":                        "",
		"ftp://" + host + at + "/status":          "",
		at + "/logout":                            "",
		at + "/api/v1/x":                          "",
		"/":                                       "",
		"http:/" + yours + "/status":              "",
		"http:" + yours:                           "",
		at + "\t/../" + yours + "/status":         "",
	} {
		c := given(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{location}
			w.WriteHeader(http.StatusFound)
		}))
		res := c.ask(http.MethodGet, at+"/info/x", navigation, c.loggedIn(t, mine, annsToken))
		status := http.StatusFound
		if want == "" {
			status = http.StatusBadGateway
		}
		if got := res.Header.Get("Location"); got != want || res.StatusCode != status {
			t.Errorf("to %q: %s to %q, want %d to %q", location, res.Status, got, status, want)
		}
	}
}

func TestRequestsFromElsewhereAreRefused(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	session := c.loggedIn(t, mine, annsToken)
	own := "http://" + host
	for _, test := range []struct {
		name string
		with headers
		want int
	}{
		{"a program", nil, 200},
		{"a typed address", navigation, 200},
		{"a link of another cluster's page", headers{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "same-origin", "Referer", own + "/" + yours + "/status"}, 200},
		{"a link of another site, after a login", headers{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "cross-site"}, 200},
		{"a script of the page", headers{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script", "Sec-Fetch-Site", "same-origin", "Referer", own + "/" + mine + "/status"}, 200},
		{"a script of the page, without a referrer", headers{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script", "Sec-Fetch-Site", "same-origin"}, 200},
		{"a frame", headers{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Site", "same-origin"}, 403},
		{"a script for another site's page", headers{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a script for a page of another port or subdomain", headers{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script", "Sec-Fetch-Site", "same-site"}, 403},
		{"a fetch of another cluster's page", headers{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin", "Referer", own + "/" + yours + "/status"}, 403},
		{"a fetch of the front page", headers{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-origin", "Referer", own + "/"}, 403},
		{"a fetch of a page that hides in dots", headers{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-origin", "Referer", own + "/" + mine + "/../" + yours}, 403},
		{"a fetch of another origin", headers{"Origin", "https://evil.example"}, 403},
		{"a fetch of a sandbox", headers{"Origin", "null"}, 403},
		{"a fetch of the same host without TLS", headers{"Origin", "https://" + host}, 403},
		{"a service worker", headers{"Service-Worker", "script", "Sec-Fetch-Mode", "same-origin", "Sec-Fetch-Dest", "serviceworker", "Sec-Fetch-Site", "same-origin"}, 403},
		{"an upgrade to HTTP/2", headers{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Origin", own}, 403},
		{"a websocket of another origin", headers{"Connection", "Upgrade", "Upgrade", "websocket", "Origin", "http://evil.example"}, 403},
		{"a websocket of another port", headers{"Connection", "Upgrade", "Upgrade", "websocket", "Origin", own + ":81"}, 403},
		{"a websocket of no origin", headers{"Connection", "Upgrade", "Upgrade", "websocket"}, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			if res := c.ask(http.MethodGet, "/"+mine+"/status", session, test.with); res.StatusCode != test.want {
				t.Errorf("%s, want %d: %s", res.Status, test.want, text(t, res))
			}
		})
	}
}

func TestOurOwnPagesRunNothing(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	for _, path := range []string{"/", "/" + mine + "/status", "/" + mine + "/logout", "/" + mine + "/api/", "/nothing"} {
		res := c.ask(http.MethodGet, path, navigation)
		body := text(t, res)
		_, after, _ := strings.Cut(body, "<style>")
		style, _, ok := strings.Cut(after, "</style>")
		sum := sha256.Sum256([]byte(style))
		if policy := res.Header.Get("Content-Security-Policy"); !ok || policy != ownPolicy || !strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])) {
			t.Errorf("%s: policy %q does not fit the page's style", path, policy)
		}
		for _, foreign := range []string{"<script", "http://", "https://", "src=", "@import", "url("} {
			if strings.Contains(body, foreign) {
				t.Errorf("%s: the page has %q", path, foreign)
			}
		}
		if res.Header.Get("X-Frame-Options") != "DENY" || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s: headers %v", path, res.Header)
		}
	}
}

func TestConnectionsAreKeptForOneCallerToOneCluster(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	c.tokens["berth_restricted"] = berth.Caller{Name: "ann", Role: berth.RoleWrite, Infrastructures: []string{"site-a"}}
	for _, login := range []struct{ cluster, token string }{{mine, annsToken}, {yours, annsToken}, {mine, bobsToken}, {mine, "berth_restricted"}} {
		session := c.loggedIn(t, login.cluster, login.token)
		before := len(c.dials()) // of which the last was to see whether one may
		for range 5 {
			if res := c.ask(http.MethodGet, "/"+login.cluster+"/status", session); res.StatusCode != http.StatusOK {
				t.Fatal(res.Status)
			}
		}
		dials := c.dials()[before:]
		if want := []string{c.tokens[login.token].Name + " " + login.cluster}; !cmp.Equal(want, dials) {
			t.Errorf("five requests of %v dialed %v, want %v", login, dials, want)
		}
	}
}

func TestOpenPagesAreBounded(t *testing.T) {
	began, release := make(chan bool), make(chan struct{})
	c := given(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/status") {
			began <- true
			<-release
		}
	}))
	session, other := c.loggedIn(t, mine, annsToken), c.loggedIn(t, mine, bobsToken)
	var open sync.WaitGroup
	for range maxRequests {
		open.Go(func() { c.ask(http.MethodGet, "/"+mine+"/status", session) })
		<-began
	}
	if res := c.ask(http.MethodGet, "/"+mine+"/workers", navigation, session); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text(t, res), "Too many pages") {
		t.Errorf("one more: %s", res.Status)
	}
	if res := c.ask(http.MethodGet, "/"+mine+"/workers", other); res.StatusCode != http.StatusOK {
		t.Errorf("somebody else's: %s", res.Status)
	}
	close(release)
	open.Wait()
	if left := len(c.handler.heads.busy); left > 0 {
		t.Errorf("%d callers are remembered", left)
	}
}

func TestAHeadThatBreaksOffOrTalksNonsense(t *testing.T) {
	c := given(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		if strings.HasSuffix(r.URL.Path, "/workers") {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			return
		}
		_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH\r\n\r\n")
	}))
	session := c.loggedIn(t, mine, annsToken)
	for _, page := range []string{"/status", "/workers"} {
		res := c.ask(http.MethodGet, "/"+mine+page, navigation, session)
		if body := text(t, res); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "does not answer") || strings.Contains(body, "SSH") {
			t.Errorf("%s: %s\n%s", page, res.Status, body)
		}
		if res.Header.Get("Content-Security-Policy") != ownPolicy || res.Header.Get("Upgrade") != "" {
			t.Errorf("%s: headers %v", page, res.Header)
		}
	}
}
