package dashboard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// patience is how long what is waited for.
type patience struct {
	dial       time.Duration // for a connection to a head
	answer     time.Duration // for its answer to begin
	idle       time.Duration // until a connection that nobody uses is closed
	wrongToken time.Duration // what a wrong token costs
}

var usual = patience{dial: 20 * time.Second, answer: time.Minute, idle: time.Minute, wrongToken: 500 * time.Millisecond}

const (
	// maxRequests is how many requests of a caller to a cluster go on at once. An
	// open page is one, as long as it is open.
	maxRequests = 100
	// maxIdle is how many connections of a caller to a cluster are kept for later.
	maxIdle = 4
	// maxHeader bounds the header of what a cluster answers.
	maxHeader = 64 << 10
)

// reach is a cluster as a caller reaches it at a site.
type reach struct {
	cluster string
	caller  berth.Caller
	site    site
}

// key names what connections are shared by: nobody goes by another's.
func (r *reach) key() string {
	text, err := json.Marshal([]any{r.cluster, r.caller})
	if err != nil {
		panic(err) // texts always can be
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

type reachKey struct{}

func reachOf(ctx context.Context) reach {
	r, _ := ctx.Value(reachKey{}).(reach)
	return r
}

// heads passes requests on to the HTTP servers of clusters.
type heads struct {
	dial     func(context.Context, berth.Caller, string) (net.Conn, error)
	patience patience
	proxy    *httputil.ReverseProxy

	mu   sync.Mutex
	busy map[string]int // requests under way, by key
}

func newHeads(dial func(context.Context, berth.Caller, string) (net.Conn, error), p patience, log *slog.Logger, failed func(http.ResponseWriter, *http.Request, error)) *heads {
	h := &heads{dial: dial, patience: p, busy: map[string]int{}}
	h.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		ModifyResponse: tame,
		ErrorHandler:   failed,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // of answers that end early
		// All clusters have one transport, which keeps connections by the host of
		// a URL: that is a key.
		Transport: &http.Transport{
			DialContext:         h.connect,
			DisableCompression:  true, // it is the browser's
			MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: p.idle, ResponseHeaderTimeout: p.answer, MaxResponseHeaderBytes: maxHeader,
		},
	}
	return h
}

func (h *heads) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	to := reachOf(ctx)
	ctx, cancel := context.WithTimeout(ctx, h.patience.dial)
	defer cancel()
	return h.dial(ctx, to.caller, to.cluster)
}

// serve passes a request on.
func (h *heads) serve(w http.ResponseWriter, r *http.Request, to reach) {
	key := to.key()
	if !h.begin(key) {
		h.proxy.ErrorHandler(w, r, berth.Errorf(berth.CodeExhausted, "too many pages of this dashboard are open: close some"))
		return
	}
	defer h.end(key)
	h.proxy.ServeHTTP(final{w}, r.WithContext(context.WithValue(r.Context(), reachKey{}, to)))
}

func (h *heads) begin(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[key] >= maxRequests {
		return false
	}
	h.busy[key]++
	return true
}

func (h *heads) end(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[key]--; h.busy[key] == 0 {
		delete(h.busy, key)
	}
}

// rewrite makes a browser's request one to a cluster: the same path and host, as
// Bokeh compares the Origin of a websocket with them, and none of its secrets.
func rewrite(p *httputil.ProxyRequest) {
	to := reachOf(p.In.Context())
	p.Out.URL.Scheme, p.Out.URL.Host = "http", to.key()
	p.Out.Body, p.Out.ContentLength, p.Out.TransferEncoding = http.NoBody, 0, nil
	keep(p.Out.Header, requestHeaders)
}

var errElsewhere = errors.New("it redirects to what is no page of it")

// tame makes an answer of a cluster harmless for the origin.
func tame(res *http.Response) error {
	to := reachOf(res.Request.Context())
	if res.StatusCode == http.StatusSwitchingProtocols {
		keep(res.Header, upgradeHeaders)
		return nil
	}
	location := ""
	if res.Header.Get("Location") != "" {
		var ok bool
		if location, ok = redirected(res, to.cluster); !ok {
			return berth.Errorf(berth.CodeForbidden, "the dashboard is not shown: %w", errElsewhere)
		}
	}
	keep(res.Header, responseHeaders)
	if location != "" {
		res.Header.Set("Location", location)
	}
	guard(res.Header, policyOf(to.site, to.cluster))
	// Pages are gone with the session; what they load may stay, if it is asked
	// whether it is still good.
	res.Header.Set("Cache-Control", "private, no-cache")
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind == "text/html" || kind == "application/json" {
		res.Header.Set("Cache-Control", "no-store")
	}
	res.Body = withoutTrailer{res.Body, res}
	res.Trailer = nil
	return nil
}

// withoutTrailer drops what would follow a body as headers.
type withoutTrailer struct {
	io.ReadCloser
	res *http.Response
}

func (b withoutTrailer) Close() error {
	err := b.ReadCloser.Close()
	b.res.Trailer = nil
	return err
}

// final drops what a cluster answers before it answers: headers of early hints
// would pass by all of the above.
type final struct{ http.ResponseWriter }

func (f final) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		f.ResponseWriter.WriteHeader(status)
	}
}

// Unwrap lets a connection be taken over for a websocket.
func (f final) Unwrap() http.ResponseWriter { return f.ResponseWriter }
