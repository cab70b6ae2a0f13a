package dashboard

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/berth-run/berth"
)

// failed shows why a dashboard can't be shown.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	if cause := context.Cause(r.Context()); berth.CodeOf(cause) == berth.CodeUnauthorized {
		err = cause // the session ended meanwhile
	}
	at, _ := addressOf(r.URL)
	p := page{Text: sentence(err)}
	status := http.StatusServiceUnavailable
	switch berth.CodeOf(err) {
	case berth.CodeUnauthorized:
		status, p.Title = http.StatusUnauthorized, "Not logged in"
	case berth.CodeForbidden:
		status, p.Title = http.StatusForbidden, "Not for you"
		if errors.Is(err, errElsewhere) {
			status, p.Title = http.StatusBadGateway, "Not a dashboard"
		}
	case berth.CodeNotFound:
		status, p.Title, p.Commands = http.StatusNotFound, "No such cluster", []string{"berth cluster list"}
	case berth.CodeConflict:
		status, p.Title, p.Commands = http.StatusGone, "The cluster has ended", []string{"berth cluster list --all"}
	case berth.CodeUnsupported:
		status, p.Title = http.StatusNotImplemented, "This cluster has no dashboard"
	case berth.CodeExhausted:
		p.Title = "Too many pages"
	case berth.CodeUnavailable:
		p.Title, p.Commands = "The cluster does not answer", []string{"berth cluster get " + at.cluster}
	default:
		// How a connection failed is for whoever runs the server.
		p.Title, p.Text, p.Commands = "The cluster does not answer", "Its head could not be reached, or gave no answer that could be read.", []string{"berth cluster get " + at.cluster}
	}
	h.options.Log.Debug("a dashboard could not be shown", "cluster", at.cluster, "error", err)
	if status == http.StatusServiceUnavailable {
		h.showForNow(w, r, p)
		return
	}
	h.show(w, r, status, p)
}

// unsure says that it can't be told now who somebody is.
func (h *handler) unsure(w http.ResponseWriter, r *http.Request, err error) {
	h.options.Log.Warn("who looks at a dashboard can't be told", "error", err)
	h.showForNow(w, r, page{Title: "Not now", Text: "The server can't look after tokens at the moment."})
}

// showForNow shows a page that may be another one soon, as a cluster may only be
// starting. What a form was sent for is not tried again.
func (h *handler) showForNow(w http.ResponseWriter, r *http.Request, p page) {
	w.Header().Set("Retry-After", "5")
	if isNavigation(r) && r.Method == http.MethodGet {
		w.Header().Set("Refresh", "5")
		p.Note = "This page looks again every few seconds."
	}
	h.show(w, r, http.StatusServiceUnavailable, p)
}

// sentence is the text of an error, as a sentence.
func sentence(err error) string {
	text := bytes.TrimRight([]byte(err.Error()), ". ")
	if len(text) == 0 {
		return ""
	}
	return string(bytes.ToUpper(text[:1])) + string(text[1:]) + "."
}
