package dashboard

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Paths below that of a cluster which are ours; no page has these names.
const (
	loginPath  = "login"
	logoutPath = "logout"
)

// maxForm bounds what is read of a form.
const maxForm = 8 << 10

// askToLogIn answers a request without a session.
func (h *handler) askToLogIn(w http.ResponseWriter, r *http.Request, cluster string) {
	if !isNavigation(r) {
		h.show(w, r, http.StatusUnauthorized, page{Title: "Not logged in", Text: "Open the dashboard in a browser to log in."})
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		// By a link of another site browsers send no cookie that is SameSite=Strict.
		// Coming from a page of ours they do, if there is one.
		w.Header().Set("Refresh", "0; url="+r.URL.RequestURI())
		h.show(w, r, http.StatusOK, page{Title: "One moment", Link: r.URL.RequestURI(), LinkText: "To the dashboard"})
		return
	}
	h.showLogin(w, r, http.StatusUnauthorized, cluster, r.URL.RequestURI(), "")
}

func (h *handler) showLogin(w http.ResponseWriter, r *http.Request, status int, cluster, next, wrong string) {
	h.show(w, r, status, page{
		Title: "Log in to the dashboard", Text: "This is the dashboard of the cluster " + cluster + ". It is shown to those who may use the cluster.",
		Action: "/" + cluster + "/" + loginPath, Next: next, Wrong: wrong, Login: true,
	})
}

// login takes a token, and begins a session if it is good and its caller may see
// the cluster.
func (h *handler) login(w http.ResponseWriter, r *http.Request, s site, cluster string) {
	if r.Method != http.MethodPost {
		h.redirect(w, r, s.pageOf(cluster))
		return
	}
	if !isOwnForm(r, s) {
		h.show(w, r, http.StatusForbidden, page{Title: "Not from here", Text: "The form was sent by another site than this one."})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		h.show(w, r, http.StatusBadRequest, page{Title: "Not understood", Text: "The form can't be read."})
		return
	}
	next := nextPage(r.PostForm.Get("next"), s, cluster)
	token := strings.TrimSpace(r.PostForm.Get("token"))
	if token == "" || len(token) > maxToken {
		h.showLogin(w, r, http.StatusUnauthorized, cluster, next, "That is no token of this server.")
		return
	}
	if !h.guesses.take(r.RemoteAddr) {
		h.options.Log.Warn("too many wrong tokens were given to log in to dashboards", "remote", r.RemoteAddr)
		w.Header().Set("Retry-After", "60")
		h.showLogin(w, r, http.StatusTooManyRequests, cluster, next, "Too many wrong tokens came from your address. Wait a minute, and try again.")
		return
	}
	caller, err := h.options.Authenticate(r.Context(), token)
	if berth.CodeOf(err) == berth.CodeUnauthorized {
		h.options.Log.Info("a wrong token was given to log in to a dashboard", "cluster", cluster, "remote", r.RemoteAddr)
		pause(r.Context(), h.patience.wrongToken)
		h.showLogin(w, r, http.StatusUnauthorized, cluster, next, sentence(err))
		return
	}
	h.guesses.right(r.RemoteAddr)
	if err != nil {
		h.unsure(w, r, err)
		return
	}
	if err := h.mayDial(r.Context(), caller, cluster); err != nil {
		h.failed(w, r, err)
		return
	}
	sealed := h.sealer.seal(session{cluster: cluster, token: berth.Secret(token), expires: time.Now().Add(sessionTime)})
	http.SetCookie(w, h.cookie(cluster, sealed, sessionTime))
	h.options.Log.Info("a session of a dashboard began", "cluster", cluster, "caller", caller.Name, "remote", r.RemoteAddr)
	guard(w.Header(), ownPolicy)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
}

// mayDial says why a caller has nothing to see at a cluster. One that can't be
// reached now may be later: that is told there.
func (h *handler) mayDial(ctx context.Context, caller berth.Caller, cluster string) error {
	ctx, cancel := context.WithTimeout(ctx, h.patience.dial)
	defer cancel()
	conn, err := h.options.Dial(ctx, caller, cluster)
	if err == nil {
		_ = conn.Close()
	}
	if berth.Lasting(err) {
		return err
	}
	return nil
}

// nextPage is where to go after a login: a page of the cluster, or its first.
func nextPage(next string, s site, cluster string) string {
	to, err := url.ParseRequestURI(next)
	if err != nil || to.Scheme != "" || to.Host != "" || strings.HasPrefix(next, "//") {
		return s.pageOf(cluster)
	}
	if at, ok := addressOf(to); !ok || at.cluster != cluster || !at.isPage() {
		return s.pageOf(cluster)
	}
	return to.RequestURI()
}

// logout asks whether to end a session, and ends it.
func (h *handler) logout(w http.ResponseWriter, r *http.Request, site site, cluster string) {
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		h.show(w, r, http.StatusOK, page{Title: "Log out of the dashboard", Text: "Pages that are open stop within half a minute.", Action: "/" + cluster + "/" + logoutPath})
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, HEAD, POST")
		h.show(w, r, http.StatusMethodNotAllowed, page{Title: "Not understood", Text: "To log out, open this page in a browser."})
	case !isOwnForm(r, site):
		h.show(w, r, http.StatusForbidden, page{Title: "Not from here", Text: "The form was sent by another site than this one."})
	default:
		if s, ok := h.session(r, cluster); ok {
			h.callers.end(s)
		}
		http.SetCookie(w, h.cookie(cluster, "", 0))
		h.show(w, r, http.StatusOK, page{Title: "Logged out", Link: site.pageOf(cluster), LinkText: "Log in again"})
	}
}

// pause waits for a while, or until whom it is for is gone.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
