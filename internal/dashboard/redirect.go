package dashboard

import (
	"net/http"
	"net/url"
	"strings"
)

// redirected returns where a redirect of a cluster leads, as a path of the same
// cluster's pages. Not ok: anywhere else. A browser does not apply the paths of a
// Content-Security-Policy behind a redirect, and would take a page of one cluster
// to another's with it.
func redirected(res *http.Response, cluster string) (string, bool) {
	location := res.Header.Get("Location")
	if strings.ContainsFunc(location, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }) {
		return "", false // browsers read these in ways of their own
	}
	to, err := url.Parse(location)
	if err != nil || to.Opaque != "" || to.User != nil {
		return "", false
	}
	if to.Host != "" && !strings.EqualFold(to.Host, res.Request.Host) || to.Scheme != "" && to.Scheme != "http" && to.Scheme != "https" {
		return "", false
	}
	to = res.Request.URL.ResolveReference(to)
	at, ok := addressOf(to)
	if !ok || at.cluster != cluster || !at.isPage() {
		return "", false
	}
	path := url.URL{Path: to.Path, RawPath: to.RawPath, RawQuery: to.RawQuery, Fragment: to.Fragment, RawFragment: to.RawFragment}
	return path.String(), true
}
