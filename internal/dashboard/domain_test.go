package dashboard

import (
	"net/http"
	"strings"
	"testing"
)

func TestWithADomainEachClusterHasItsHost(t *testing.T) {
	c := given(t, http.HandlerFunc(saying), func(o *Options) { o.Secure, o.Domain = true, "Dash.Example.org." })
	for _, test := range []struct {
		name, host, path string
		status           int
		location         string
	}{
		{"the first page", host, "/", 200, ""},
		{"a link without the cluster's host", host, "/" + mine + "/status?a=b", 302, "https://" + mine + "." + host + "/" + mine + "/status?a=b"},
		{"with a port", host + ":8443", "/" + mine, 302, "https://" + mine + "." + host + ":8443/" + mine},
		{"the cluster's host", mine + "." + host, "/" + mine + "/status", 401, ""},
		{"in capital letters", strings.ToUpper(mine + "." + host), "/" + mine + "/status", 401, ""},
		{"with a dot at its end", mine + "." + host + ".", "/" + mine + "/status", 401, ""},
		{"its root", mine + "." + host, "/", 302, "/" + mine + "/status"},
		{"another cluster at it", mine + "." + host, "/" + yours + "/status", 404, ""},
		{"another cluster's login at it", mine + "." + host, "/" + yours + "/login", 404, ""},
		{"a host of no cluster", "www." + host, "/" + mine + "/status", 421, ""},
		{"a host below a cluster's", "x." + mine + "." + host, "/" + mine + "/status", 421, ""},
		{"a host that ends alike", mine + host, "/" + mine + "/status", 421, ""},
		{"another host", "example.com", "/" + mine + "/status", 421, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			res := c.ask(http.MethodGet, test.path, navigation, headers{"Host", test.host})
			if location := res.Header.Get("Location"); res.StatusCode != test.status || location != test.location {
				t.Errorf("%s to %q, want %d to %q", res.Status, location, test.status, test.location)
			}
		})
	}
	if res := c.logIn(mine, annsToken, ""); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a token given at the domain itself was answered %s", res.Status)
	}
}

func TestWithADomainSessionsStayAtTheirHost(t *testing.T) {
	c := given(t, http.HandlerFunc(saying), func(o *Options) { o.Secure, o.Domain = true, host })
	at := headers{"Host", mine + "." + host}
	res := c.logIn(mine, annsToken, "", at, headers{"Origin", "https://" + mine + "." + host})
	if len(res.Cookies()) != 1 {
		t.Fatalf("the login was answered %s", res.Status)
	}
	cookie := res.Cookies()[0]
	if cookie.Name != "__Host-berth-dashboard" || cookie.Path != "/" || !cookie.Secure || cookie.Domain != "" {
		t.Errorf("the cookie is %s", cookie)
	}
	session := headers{"Cookie", cookie.Name + "=" + cookie.Value}
	shown := c.ask(http.MethodGet, "/"+mine+"/status", at, session, navigation)
	if policy := shown.Header.Get("Content-Security-Policy"); shown.StatusCode != http.StatusOK || !strings.Contains(policy, "connect-src https://"+mine+"."+host+"/"+mine+"/ wss://"+mine+"."+host+"/"+mine+"/") {
		t.Errorf("%s with policy %s", shown.Status, policy)
	}
	for name, with := range map[string]headers{
		"a fetch of another cluster's page":     {"Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-site", "Origin", "https://" + yours + "." + host},
		"a script for another cluster's page":   {"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Site", "same-site"},
		"a websocket of another cluster's page": {"Connection", "Upgrade", "Upgrade", "websocket", "Origin", "https://" + yours + "." + host},
		"a websocket of the domain itself":      {"Connection", "Upgrade", "Upgrade", "websocket", "Origin", "https://" + host},
	} {
		if res := c.ask(http.MethodGet, "/"+mine+"/status", at, session, with); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s was answered %s", name, res.Status)
		}
	}
}
