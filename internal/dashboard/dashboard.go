// Package dashboard is the HTTP handler through which people see the dashboards
// of compute clusters on a server: an origin of its own, apart from the API's,
// with a login of its own. It is no part of the API, and shows nothing that a
// cluster's own HTTP server does not; that it reaches by what it is given as
// Options, and it knows no Kubernetes and no store.
//
// # What is trusted
//
// The pages are code from users' images, so they are trusted with nothing but
// their own cluster. What comes from a cluster passes as follows:
//
//   - Only pages of dashboards are asked for, by GET: the engine's control API,
//     its proxy to other hosts and Berth's own routes are not reached (pages.go).
//   - Of a request's and an answer's headers those pass that are known to be
//     needed, in particular no cookie and no Authorization (headers.go). Redirects
//     lead nowhere but into the same cluster's pages (redirect.go).
//   - A session is for one cluster. Its cookie is HttpOnly, and holds the token
//     sealed, so that neither scripts nor who finds the cookie read it; the token
//     is looked at again every 30 seconds, so that revoking it ends the session
//     and its open connections (session.go, callers.go).
//
// # Between clusters
//
// With Options.Domain each cluster has a host name of its own, and browsers keep
// the pages of one from those of another: that is what to run where people do not
// trust each other's images.
//
// Without it all dashboards share one origin, and these rules keep a page of one
// cluster from using the session that its reader has for another:
//
//   - Its Content-Security-Policy lets it load from, and connect to, its own
//     /<cluster>/ alone, frame nothing and start no worker. The policy does not
//     hold behind redirects, hence the rule for those above.
//   - It is sandboxed so that it opens no windows, and
//     Cross-Origin-Opener-Policy cuts it off from whoever opened it: it never
//     holds a window with a page of another cluster, or with the login, in it.
//     Links that open a new tab do nothing for that reason.
//   - Requests for anything but a page to look at are refused where the browser
//     says that they come from another place (initiator.go). That is a second
//     line: within an origin a page can name any of its paths as the referrer.
//
// What stays on one origin: a page can show any path of the origin in the address
// bar and imitate the login there, and ask its reader's password manager for a
// token kept for the origin; it can leave cookies and stored data for the origin,
// which may keep other dashboards from working but reads nothing of them; it may
// run in one process with them; and all of this is only as good as the browser.
// Browsers heed Cross-Origin-Opener-Policy on https:// and on loopback addresses
// alone. With Options.Domain the imitated login remains, under the host name of
// the cluster that imitates.
//
// Pages answer what happens in them by websocket: a dashboard that lets its
// readers change something is changed by whoever may see it.
package dashboard

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/berth-run/berth"
)

// Options says for whom which dashboards are shown.
type Options struct {
	// Authenticate returns who a token of the server is: CodeUnauthorized, with
	// words for who showed it, for one that is none. It is asked again at most
	// every 30 seconds of a session.
	Authenticate func(ctx context.Context, token string) (berth.Caller, error)

	// Dial connects to the HTTP server of a cluster, by its id, as a caller may:
	// CodeNotFound, CodeForbidden, CodeConflict for one that has ended, and
	// CodeUnavailable for one that can't be reached now. A connection is kept
	// beyond ctx, for further requests of the same caller, until nobody uses it for
	// a minute; it need not know deadlines.
	Dial func(ctx context.Context, caller berth.Caller, cluster string) (net.Conn, error)

	// Key seals sessions: 32 secret bytes or more, the same for all servers of a
	// store. Another one ends all sessions.
	Key []byte

	// Secure says that browsers come by TLS, to this handler or to a proxy before
	// it: cookies are for TLS alone then.
	Secure bool

	// Domain, if any, has each cluster at <id>.Domain, a name that resolves to
	// this handler, with a certificate for *.Domain. Without it all are at the
	// same host; see the package's documentation.
	Domain string

	Log *slog.Logger
}

type handler struct {
	options  Options
	sealer   *sealer
	callers  *callers
	guesses  *guesses
	heads    *heads
	patience patience
}

// New returns the handler of an origin of dashboards, for a listener of its own.
// Connections that pages hold open end with the contexts of their requests. It
// panics if a part of Options is missing that it can't do without.
func New(o Options) http.Handler {
	if o.Authenticate == nil || o.Dial == nil || len(o.Key) < minKey {
		panic("dashboard: Authenticate, Dial and a Key of 32 bytes or more are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Domain = strings.ToLower(strings.Trim(o.Domain, "."))
	h := &handler{
		options: o, sealer: newSealer(o.Key), callers: newCallers(o.Authenticate), guesses: newGuesses(), patience: usual,
	}
	h.heads = newHeads(o.Dial, h.patience, o.Log, h.failed)
	return h
}

// ServeHTTP is the way of each request:
//
//	host -> address -> login, logout -> method -> page -> initiator -> session -> head
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	site, ok := h.site(r)
	if !ok {
		h.show(w, r, http.StatusMisdirectedRequest, page{Title: "Not a host of dashboards", Text: "Dashboards are not served by the host name in this address. IP addresses of version 6 won't do: use a name."})
		return
	}
	at, ok := addressOf(r.URL)
	switch {
	case r.URL.Path == "/" && site.cluster == "":
		h.show(w, r, http.StatusOK, page{Title: "Dashboards of clusters", Text: "Each has an address of its own, /ID/status, where ID is the id of a cluster.", Commands: []string{"berth cluster list"}})
	case r.URL.Path == "/":
		h.redirect(w, r, site.pageOf(site.cluster))
	case !ok || site.cluster != "" && site.cluster != at.cluster:
		h.show(w, r, http.StatusNotFound, page{Title: "No such page", Text: "Dashboards are at /ID/status, where ID is the id of a cluster.", Commands: []string{"berth cluster list"}})
	case h.options.Domain != "" && site.cluster == "":
		site = h.siteOf(at.cluster + "." + r.Host)
		h.redirect(w, r, site.origin+r.URL.RequestURI())
	case at.rest == "":
		h.redirect(w, r, site.pageOf(at.cluster))
	case at.rest == loginPath:
		h.login(w, r, site, at.cluster)
	case at.rest == logoutPath:
		h.logout(w, r, site, at.cluster)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		h.show(w, r, http.StatusMethodNotAllowed, page{Title: "Only to be looked at", Text: "Dashboards are shown here; clusters are not controlled by them."})
	case !at.isPage():
		h.show(w, r, http.StatusForbidden, page{Title: "Not a dashboard", Text: "Only the pages of dashboards are passed on, and this is none of them."})
	default:
		h.serve(w, r, site, at.cluster)
	}
}

// serve answers a request for a page of a cluster.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, site site, cluster string) {
	if reason := refused(r, site, cluster); reason != "" {
		h.options.Log.Debug("a request for a dashboard was refused", "cluster", cluster, "reason", reason, "remote", r.RemoteAddr)
		h.show(w, r, http.StatusForbidden, page{Title: "Not from here", Text: reason})
		return
	}
	s, ok := h.session(r, cluster)
	if !ok {
		h.askToLogIn(w, r, cluster)
		return
	}
	caller, err := h.callers.of(r.Context(), s)
	if err != nil {
		if berth.CodeOf(err) == berth.CodeUnauthorized {
			h.askToLogIn(w, r, cluster)
			return
		}
		h.unsure(w, r, err)
		return
	}
	ctx, done := h.callers.whileGood(r.Context(), s)
	defer done()
	h.heads.serve(w, r.WithContext(ctx), reach{cluster: cluster, caller: caller, site: site})
}

// redirect sends a browser to another of our addresses.
func (h *handler) redirect(w http.ResponseWriter, r *http.Request, to string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		h.show(w, r, http.StatusMethodNotAllowed, page{Title: "Only to be looked at", Text: "The pages of a dashboard are below /ID/, where ID is the id of a cluster."})
		return
	}
	guard(w.Header(), ownPolicy)
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
}

// below reports whether an address is one of the pages of a cluster, or another
// path below its own.
func below(u *url.URL, cluster string) bool {
	at, ok := addressOf(u)
	return ok && at.cluster == cluster && at.rest != ""
}
