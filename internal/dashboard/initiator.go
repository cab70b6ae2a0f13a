package dashboard

import (
	"net/http"
	"net/url"
	"strings"
)

// isNavigation reports whether a browser wants a page to show it, rather than
// something for a page that it shows.
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost || isUpgrade(r) {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// refused says why a request for a page of a cluster is not answered, judged by
// where it comes from. Empty: it is. A program that is no browser says nothing of
// that, and has no session to be misused either.
func refused(r *http.Request, s site, cluster string) string {
	if isUpgrade(r) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			return "Connections are upgraded to websockets alone."
		}
		// Browsers let any page connect to any host, and tell which page it is.
		if !s.sent(r.Header.Get("Origin")) {
			return "The websocket comes from another origin than this one."
		}
	}
	if origin := r.Header.Get("Origin"); origin != "" && !s.sent(origin) {
		return "The request comes from another origin than this one."
	}
	if r.Header.Get("Service-Worker") != "" {
		return "A dashboard may have no service workers: they would stay behind it."
	}
	if isNavigation(r) {
		switch r.Header.Get("Sec-Fetch-Dest") {
		case "iframe", "frame", "fencedframe", "embed", "object":
			return "Dashboards are not shown in frames."
		}
		return ""
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return "The request comes from another site than this one."
	}
	if referrer := r.Header.Get("Referer"); referrer != "" {
		from, err := url.Parse(referrer)
		if err != nil || !s.sent(from.Scheme+"://"+from.Host) || !below(from, cluster) {
			return "The request comes from a page of something else than this cluster."
		}
	}
	return ""
}

// sent reports whether an Origin header is that of a page of ours.
func (s *site) sent(origin string) bool { return strings.EqualFold(origin, s.origin) }

// isOwnForm reports whether a form was sent by a page of ours.
func isOwnForm(r *http.Request, s site) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	return origin == "" || s.sent(origin)
}
