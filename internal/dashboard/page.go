package dashboard

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

// page is what we have to say, instead of a dashboard.
type page struct {
	Title, Text    string
	Note           string
	Commands       []string // of berth, that help
	Action         string   // of the form, if any
	Login          bool     // the form takes a token
	Next           string   // where the form leads
	Wrong          string   // with what was sent by it before
	Link, LinkText string
}

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// ownPolicy is the Content-Security-Policy of our own pages: their style, and
// nothing else.
var ownPolicy = func() string {
	_, after, _ := strings.Cut(pageSource, "<style>")
	style, _, _ := strings.Cut(after, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// show answers with a page for people, or with a line for what wants none.
func (h *handler) show(w http.ResponseWriter, r *http.Request, status int, p page) {
	guard(w.Header(), ownPolicy)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept, Sec-Fetch-Mode")
	if !isNavigation(r) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(strings.TrimSpace(p.Title+": "+p.Text) + "\n")) // whoever asked may be gone
		return
	}
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, p); err != nil {
		h.options.Log.Error("a page can't be written", "title", p.Title, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}
