package dashboard

import (
	"net/http"
	"net/textproto"
	"strings"
)

// requestHeaders pass to a cluster. Cookies and credentials are not among them:
// neither ours, nor those of a proxy that lets people in before us.
var requestHeaders = known(
	"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "If-Modified-Since", "If-None-Match", "If-Range",
	"Origin", "Pragma", "Range", "User-Agent",
	"Connection", "Upgrade", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version",
)

// responseHeaders pass from a cluster. Others could speak for the whole origin
// (Set-Cookie, Clear-Site-Data, Alt-Svc, Service-Worker-Allowed), let other
// origins in (Access-Control-*), load past the policy (Link), or loosen it.
var responseHeaders = known(
	"Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Range", "Content-Type",
	"Date", "Etag", "Last-Modified", "Location", "Vary",
)

// upgradeHeaders pass from a cluster in the answer that begins a websocket.
var upgradeHeaders = known("Connection", "Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol")

func known(names ...string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, name := range names {
		out[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	return out
}

func keep(header http.Header, names map[string]bool) {
	for name := range header {
		if !names[name] {
			delete(header, name)
		}
	}
}

// guard puts onto an answer what keeps a browser from misusing it.
func guard(header http.Header, policy string) {
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin") // its own pages' path is looked at
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Origin-Agent-Cluster", "?1")
	header.Set("Permissions-Policy", "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), serial=(), usb=()")
	header.Set("X-Robots-Tag", "noindex")
}

// policyOf is the Content-Security-Policy of a cluster's pages: all that Bokeh
// needs, from the cluster's own path alone. Hosts are written out, since 'self'
// knows no path.
func policyOf(s site, cluster string) string {
	own := s.origin + "/" + cluster + "/"
	socket := "ws" + strings.TrimPrefix(own, "http") // ws: for http:, wss: for https:
	directives := []string{
		"default-src 'none'",
		"script-src 'unsafe-inline' 'unsafe-eval' " + own, // Bokeh makes functions of texts
		"style-src 'unsafe-inline' " + own,
		"img-src data: blob: " + own,
		"font-src data: " + own,
		"connect-src " + own + " " + socket,
		"worker-src 'none'", "frame-src 'none'", "object-src 'none'", "form-action 'none'", "base-uri 'none'", "frame-ancestors 'none'",
	}
	if !s.own {
		directives = append(directives, "sandbox allow-scripts allow-same-origin allow-downloads")
	}
	return strings.Join(directives, "; ")
}
