package dashboard

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
)

func TestLoginLeadsToThePageThatWasAskedFor(t *testing.T) {
	c := given(t, http.HandlerFunc(saying), func(o *Options) { o.Secure = true })
	page := "/" + mine + "/info/worker/tls%3A%2F%2F10.0.0.1%3A4711.html?a=b&c=%2F"

	form := c.ask(http.MethodGet, page, navigation)
	body := text(t, form)
	if form.StatusCode != http.StatusUnauthorized || !strings.Contains(body, `type="password"`) || !strings.Contains(body, "berth server token create") {
		t.Fatalf("without a session: %s\n%s", form.Status, body)
	}
	if !strings.Contains(body, strings.ReplaceAll(page, "&", "&amp;")) {
		t.Errorf("the form does not lead back to %s:\n%s", page, body)
	}

	answer := c.logIn(mine, " "+annsToken+"\n", page, headers{"Sec-Fetch-Site", "same-origin", "Origin", "https://" + host})
	if answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != page {
		t.Fatalf("the login was answered %s to %q", answer.Status, answer.Header.Get("Location"))
	}
	cookie := answer.Cookies()[0]
	if !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/"+mine+"/" || cookie.MaxAge != 8*60*60 || cookie.Domain != "" || cookie.Name != "__Secure-berth-dashboard" {
		t.Errorf("the cookie is %s", cookie)
	}
	if strings.Contains(cookie.Value, annsToken) {
		t.Error("the cookie shows the token")
	}

	shown := c.ask(http.MethodGet, page, navigation, headers{"Cookie", cookie.Name + "=" + cookie.Value})
	if body := text(t, shown); shown.StatusCode != http.StatusOK || body != "GET "+page {
		t.Errorf("with the session: %s %q", shown.Status, body)
	}
	if log := c.log.String(); strings.Contains(log, annsToken) || strings.Contains(log, cookie.Value) {
		t.Errorf("the log tells secrets:\n%s", log)
	}
}

func TestWithoutASessionPeopleMayLogInAndProgramsAreToldSo(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	for _, test := range []struct {
		name   string
		path   string
		with   headers
		status int
		says   string
	}{
		{"an address that was typed, or came from a terminal", "/status", navigation, 401, `name="token"`},
		{"an older browser", "/status", headers{"Accept", "text/html,*/*"}, 401, `name="token"`},
		{"a link of another site, with which no cookie is sent", "/status", headers{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "cross-site"}, 200, `href="/` + mine + `/status"`},
		{"a script of a page", "/json/counts.json", headers{"Accept", "*/*", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-origin"}, 401, "Not logged in"},
		{"a program", "/json/counts.json", nil, 401, "Not logged in"},
		{"a websocket", "/status/ws", headers{"Connection", "Upgrade", "Upgrade", "websocket", "Origin", "http://" + host, "Accept", "text/html"}, 401, "Not logged in"},
		{"a cookie of nothing", "/status", headers{"Cookie", "berth-dashboard=AAAA", "Accept", "text/html"}, 401, `name="token"`},
		{"a token as a program of the API would send it", "/status", headers{"Authorization", "Bearer " + annsToken}, 401, "Not logged in"},
	} {
		t.Run(test.name, func(t *testing.T) {
			res := c.ask(http.MethodGet, "/"+mine+test.path, test.with)
			if body := text(t, res); res.StatusCode != test.status || !strings.Contains(body, test.says) {
				t.Errorf("%s, want %d and %q:\n%s", res.Status, test.status, test.says, body)
			}
			if refresh := res.Header.Get("Refresh"); (refresh != "") != (test.status == http.StatusOK) {
				t.Errorf("Refresh: %q", refresh)
			}
		})
	}
	if dials := c.dials(); len(dials) > 0 {
		t.Errorf("clusters were connected to without a session: %v", dials)
	}
}

func TestLoginsThatFailBeginNoSession(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	for _, test := range []struct {
		name    string
		cluster string
		token   string
		with    headers
		status  int
		says    string
	}{
		{"a wrong token", mine, "berth_guessed", nil, 401, "doesn&#39;t know it"},
		{"no token", mine, "  ", nil, 401, "no token of this server"},
		{"a text too long for a token", mine, strings.Repeat("x", maxToken+1), nil, 401, "no token of this server"},
		{"a form too long", mine, strings.Repeat("x", maxForm), nil, 400, "can&#39;t be read"},
		{"a cluster that isn't there", missing, annsToken, nil, 404, "There is no cluster"},
		{"a cluster that the caller may not use", hidden, bobsToken, nil, 403, "may not connect"},
		{"a cluster that has ended", over, annsToken, nil, 410, "is stopped"},
		{"a form of another site", mine, annsToken, headers{"Sec-Fetch-Site", "cross-site"}, 403, "another site"},
		{"a form of another port or subdomain", mine, annsToken, headers{"Sec-Fetch-Site", "same-site"}, 403, "another site"},
		{"a form of another origin, in an older browser", mine, annsToken, headers{"Origin", "https://evil.example"}, 403, "another site"},
		{"a form of no origin", mine, annsToken, headers{"Origin", "null"}, 403, "another site"},
	} {
		t.Run(test.name, func(t *testing.T) {
			res := c.logIn(test.cluster, test.token, "", test.with)
			if body := text(t, res); res.StatusCode != test.status || !strings.Contains(body, test.says) {
				t.Errorf("%s, want %d and %q:\n%s", res.Status, test.status, test.says, body)
			}
			if cookies := res.Cookies(); len(cookies) > 0 {
				t.Errorf("a session began: %v", cookies)
			}
		})
	}
	if log := c.log.String(); strings.Contains(log, "berth_guessed") || !strings.Contains(log, "a wrong token was given") {
		t.Errorf("the log:\n%s", log)
	}
}

func TestAClusterThatStartsIsWaitedForAfterTheLogin(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	session := c.loggedIn(t, starting, annsToken)
	res := c.ask(http.MethodGet, "/"+starting+"/status", navigation, session)
	if body := text(t, res); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Refresh") != "5" || !strings.Contains(body, "The head of cluster demo is pending.") {
		t.Errorf("%s, Refresh %q:\n%s", res.Status, res.Header.Get("Refresh"), body)
	}
	if res := c.ask(http.MethodGet, "/"+starting+"/json/counts.json", session); res.Header.Get("Refresh") != "" || res.Header.Get("Retry-After") == "" {
		t.Errorf("a program is told %v", res.Header)
	}
}

func TestLoginLeadsNowhereElse(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	first := "/" + mine + "/status"
	for next, want := range map[string]string{
		"/" + mine + "/workers?x=1":         "/" + mine + "/workers?x=1",
		"":                                  first,
		"https://evil.example/":             first,
		"//evil.example/" + mine:            first,
		"/\\evil.example":                   first,
		"/" + yours + "/status":             first,
		"/" + mine + "/../" + yours + "/x":  first,
		"/" + mine + "/%2e%2e/status":       first,
		"/" + mine + "/api/v1/get_workers":  first,
		"/" + mine + "/logout":              first,
		"javascript:alert(1)":               first,
		"/" + mine + "/status\r\nX-Evil: 1": first,
	} {
		res := c.logIn(mine, annsToken, next)
		if got := res.Header.Get("Location"); got != want {
			t.Errorf("next %q leads to %q, want %q", next, got, want)
		}
	}
}

func TestGuessersAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := given(t, http.HandlerFunc(saying))
		c.handler.patience = usual
		began := time.Now()
		for range guessesAtOnce {
			if res := c.logIn(mine, "berth_guessed", ""); res.StatusCode != http.StatusUnauthorized {
				t.Fatalf("a wrong token was answered %s", res.Status)
			}
		}
		if took := time.Since(began); took != guessesAtOnce*usual.wrongToken {
			t.Errorf("%d wrong tokens took %s", guessesAtOnce, took)
		}
		asked := c.asked
		if res := c.logIn(mine, annsToken, ""); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
			t.Errorf("one more was answered %s", res.Status)
		}
		if c.asked != asked {
			t.Error("the store was asked all the same")
		}
		time.Sleep(guessInterval)
		for range 3 { // as right ones don't count
			if res := c.logIn(mine, annsToken, ""); res.StatusCode != http.StatusSeeOther {
				t.Errorf("a right one after a while was answered %s", res.Status)
			}
		}
	})
}

func TestGuessersAreToldApartByTheirHost(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1:1000", "192.0.2.1:2000", true},
		{"192.0.2.1:1000", "192.0.2.2:1000", false},
		{"[2001:db8::1]:1", "[2001:db8::2]:1", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:1", true},
		{"@", "pipe", true},
	} {
		if same := guesser(test.a) == guesser(test.b); same != test.same {
			t.Errorf("%s and %s count as one: %t", test.a, test.b, same)
		}
	}
	g := newGuesses()
	for i := range 3 * maxGuessers {
		g.take(string(rune('0'+i%10)) + ".0.0.1:1")
		g.take("10." + strings.Join([]string{strconv.Itoa(i >> 16 & 255), strconv.Itoa(i >> 8 & 255), strconv.Itoa(i & 255)}, ".") + ":1")
	}
	if len(g.from) > maxGuessers {
		t.Errorf("%d addresses are remembered", len(g.from))
	}
}

func TestLogoutEndsTheSession(t *testing.T) {
	c := given(t, http.HandlerFunc(saying))
	session := c.loggedIn(t, mine, annsToken)
	other := c.loggedIn(t, mine, annsToken)
	path := "/" + mine + "/logout"
	if res := c.ask(http.MethodGet, path, navigation, session); res.StatusCode != http.StatusOK || !strings.Contains(text(t, res), `method="post"`) {
		t.Errorf("the page to log out is %s", res.Status)
	}
	if res := c.ask(http.MethodPost, path, session, headers{"Sec-Fetch-Site", "cross-site"}); res.StatusCode != http.StatusForbidden {
		t.Errorf("another site's form was answered %s", res.Status)
	}
	if res := c.ask(http.MethodGet, "/"+mine+"/status", session); res.StatusCode != http.StatusOK {
		t.Errorf("which ended the session: %s", res.Status)
	}
	res := c.ask(http.MethodPost, path, navigation, session, headers{"Sec-Fetch-Site", "same-origin", "Origin", "http://" + host})
	if cookies := res.Cookies(); res.StatusCode != http.StatusOK || len(cookies) != 1 || cookies[0].MaxAge != -1 || cookies[0].Path != "/"+mine+"/" {
		t.Errorf("logging out was answered %s with cookies %v", res.Status, cookies)
	}
	if res := c.ask(http.MethodGet, "/"+mine+"/status", session); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a copy of the cookie still shows the dashboard: %s", res.Status)
	}
	if res := c.ask(http.MethodGet, "/"+mine+"/status", other); res.StatusCode != http.StatusOK {
		t.Errorf("another session of the same token ended too: %s", res.Status)
	}
}

func TestARevokedTokenEndsTheSessionWithinHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := given(t, http.HandlerFunc(saying))
		session := c.loggedIn(t, mine, annsToken)
		status := func() int { return c.ask(http.MethodGet, "/"+mine+"/status", session).StatusCode }
		if got := status(); got != http.StatusOK {
			t.Fatalf("a new session: %d", got)
		}
		asked := c.asked
		for range 20 {
			status()
		}
		if c.asked != asked {
			t.Errorf("the token was looked at %d times more within a moment", c.asked-asked)
		}
		c.revoke(annsToken)
		time.Sleep(recheckInterval)
		if got := status(); got != http.StatusUnauthorized {
			t.Errorf("with a token that was revoked half a minute ago: %d", got)
		}
	})
}

func TestAStoreOutOfReachEndsNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := given(t, http.HandlerFunc(saying))
		session := c.loggedIn(t, mine, annsToken)
		c.breaks(errors.New("dial tcp 10.1.2.3:5432: connection refused"))
		if res := c.logIn(mine, annsToken, ""); res.StatusCode != http.StatusServiceUnavailable || strings.Contains(text(t, res), "10.1.2.3") {
			t.Errorf("a login was answered %s", res.Status)
		}
		time.Sleep(recheckInterval)
		res := c.ask(http.MethodGet, "/"+mine+"/status", session)
		if body := text(t, res); res.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "10.1.2.3") {
			t.Errorf("without the store: %s %s", res.Status, body)
		}
		c.breaks(nil)
		if res := c.ask(http.MethodGet, "/"+mine+"/status", session); res.StatusCode != http.StatusOK {
			t.Errorf("with the store again: %s", res.Status)
		}
	})
}

func TestAHeadThatDoesNotAnswerIsNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := given(t, http.HandlerFunc(saying), func(o *Options) {
			o.Dial = func(ctx context.Context, _ berth.Caller, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		began := time.Now()
		session := c.loggedIn(t, mine, annsToken)
		if res := c.ask(http.MethodGet, "/"+mine+"/status", navigation, session); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("it was answered %s", res.Status)
		}
		if took := time.Since(began); took > 3*usual.dial {
			t.Errorf("it took %s", took)
		}
	})
}
