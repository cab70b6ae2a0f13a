package datafs

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// Server serves a Tree to whoever has the token.
type Server struct {
	dir      string // where the tree is here
	seen     string // where tasks have it
	readOnly bool
	sum      string // of the token
	mux      *http.ServeMux

	mu    sync.Mutex
	busy  int
	since time.Time // when it had nothing to do last
}

// NewServer returns a handler for the tree at dir, which tasks have at seen,
// with the TokenSum of its token.
func NewServer(dir, seen string, readOnly bool, sum string) *Server {
	s := &Server{dir: dir, seen: seen, readOnly: readOnly, sum: sum, mux: http.NewServeMux(), since: time.Now()}
	s.mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s.mux.HandleFunc("GET "+entriesPath, s.with((*request).list))
	s.mux.HandleFunc("GET "+contentPath, s.with((*request).get))
	s.mux.HandleFunc("PUT "+contentPath, s.with((*request).put))
	s.mux.HandleFunc("DELETE "+contentPath, s.with((*request).remove))
	return s
}

// Idle returns how long nothing was asked for.
func (s *Server) Idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy > 0 {
		return 0
	}
	return time.Since(s.since)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !hmac.Equal([]byte(TokenSum(token)), []byte(s.sum)) {
		refuse(w, berth.Errorf(berth.CodeUnauthorized, "the token is not the one of this server"))
		return
	}
	s.mu.Lock()
	s.busy++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.busy--
		s.since = time.Now()
		s.mu.Unlock()
	}()
	s.mux.ServeHTTP(w, r)
}

// request is what one request reaches.
type request struct{ tree *Tree }

// with opens the tree for a request. One that was opened before would lead
// nowhere where a mount went and came back meanwhile.
func (s *Server) with(fn func(*request, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		root, err := os.OpenRoot(s.dir)
		if err != nil {
			refuse(w, explained(s.seen, err))
			return
		}
		defer root.Close()
		fn(&request{&Tree{Root: root, Seen: s.seen, ReadOnly: s.readOnly}}, w, r)
	}
}

func refuse(w http.ResponseWriter, err error) {
	code := berth.CodeOf(err)
	status, ok := statuses[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{code, err.Error()})
}

// asked is the path of a request, and whether it is for all below it.
func asked(r *http.Request) (string, bool, error) {
	q := r.URL.Query()
	relative := q.Get("path")
	if !fs.ValidPath(relative) {
		return "", false, berth.Errorf(berth.CodeInvalid, "path %q is not one below the mount", relative)
	}
	return relative, q.Get("recursive") == "true", nil
}

func (s *request) list(w http.ResponseWriter, r *http.Request) {
	relative, recursive, err := asked(r)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Trailer", failedTrailer)
	lines := bufio.NewWriterSize(w, 64<<10)
	encoder := json.NewEncoder(lines)
	written := false
	err = s.tree.List(relative, recursive, func(e berth.DataEntry) error {
		written = true
		return encoder.Encode(e)
	})
	if err != nil && !written {
		w.Header().Del("Trailer")
		refuse(w, err)
		return
	}
	end(w, lines, err)
}

// end ends a body that has begun: where something went wrong on the way that is
// said behind it.
func end(w http.ResponseWriter, body *bufio.Writer, err error) {
	if flushErr := body.Flush(); flushErr != nil {
		return // whoever asked is gone
	}
	text := ""
	if err != nil {
		data, marshalErr := json.Marshal(refusal{berth.CodeOf(err), err.Error()})
		if marshalErr != nil {
			panic(http.ErrAbortHandler)
		}
		text = string(data)
	}
	w.Header().Set(failedTrailer, text)
}

func (s *request) get(w http.ResponseWriter, r *http.Request) {
	relative, recursive, err := asked(r)
	if err != nil {
		refuse(w, err)
		return
	}
	seen := s.tree.seen(relative)
	info, err := s.tree.Root.Stat(relative)
	switch {
	case err != nil:
		refuse(w, explained(seen, err))
		return
	case info.IsDir() && !recursive:
		refuse(w, berth.Errorf(berth.CodeInvalid, "%s is a directory: -r gets it with all that is in it", seen))
		return
	case !info.IsDir() && !info.Mode().IsRegular():
		refuse(w, berth.Errorf(berth.CodeInvalid, "%s is neither a file nor a directory", seen))
		return
	}
	entry, err := json.Marshal(s.tree.entry(relative, info))
	if err != nil {
		refuse(w, berth.Errorf(berth.CodeInternal, "%w", err))
		return
	}
	var read func(io.Writer) (int, error)
	if info.IsDir() {
		below, err := s.tree.Root.OpenRoot(relative)
		if err != nil {
			refuse(w, explained(seen, err))
			return
		}
		defer below.Close()
		read = func(to io.Writer) (int, error) { return Pack(below, to) }
	} else {
		file, err := s.tree.Root.Open(relative)
		if err != nil {
			refuse(w, explained(seen, err))
			return
		}
		defer file.Close()
		read = func(to io.Writer) (int, error) {
			_, err := io.CopyBuffer(to, struct{ io.Reader }{file}, make([]byte, bufferSize))
			return 0, err
		}
	}
	w.Header().Set(entryHeader, strconv.QuoteToASCII(string(entry)))
	w.Header().Set("Trailer", strings.Join([]string{sumTrailer, skippedHeader, failedTrailer}, ", "))
	body := bufio.NewWriterSize(w, bufferSize)
	sum := sha256.New()
	skipped, err := read(struct{ io.Writer }{io.MultiWriter(body, sum)})
	end(w, body, explained(seen, err))
	w.Header().Set(sumTrailer, hex.EncodeToString(sum.Sum(nil)))
	w.Header().Set(skippedHeader, strconv.Itoa(skipped))
}

func (s *request) put(w http.ResponseWriter, r *http.Request) {
	relative, _, err := asked(r)
	if err != nil {
		refuse(w, err)
		return
	}
	q := r.URL.Query()
	if relative, err = s.tree.place(relative, q.Get("name"), q.Get("folder") == "true"); err != nil {
		refuse(w, err)
		return
	}
	mode, err := strconv.ParseUint("0"+q.Get("mode"), 8, 32)
	if err != nil {
		refuse(w, berth.Errorf(berth.CodeInvalid, "mode %q is not octal", q.Get("mode")))
		return
	}
	body := &summed{Reader: r.Body, sum: sha256.New()}
	verify := func() error {
		if got, want := hex.EncodeToString(body.sum.Sum(nil)), r.Trailer.Get(sumTrailer); got != want {
			return berth.Errorf(berth.CodeUnavailable, "%s: what came is not what was sent (SHA-256 %s, sent %q): nothing was changed", s.tree.seen(relative), got, want)
		}
		return nil
	}
	var entry berth.DataEntry
	if q.Get("directory") == "true" {
		entry, err = s.tree.PutTree(relative, body, verify)
	} else {
		entry, err = s.tree.Put(relative, fs.FileMode(mode), body, verify)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(entry)
}

func (s *request) remove(w http.ResponseWriter, r *http.Request) {
	relative, recursive, err := asked(r)
	if err == nil {
		err = s.tree.Remove(relative, recursive)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// summed sums up what is read.
type summed struct {
	io.Reader
	sum   hash.Hash
	size  int64
	ended bool // by its end, and not by being cut off
}

func (r *summed) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.sum.Write(p[:n])
	r.size += int64(n)
	r.ended = errors.Is(err, io.EOF)
	return n, err
}

// failed is the error that a text of the server stands for.
func failed(text []byte) error {
	var r refusal
	if err := json.Unmarshal(text, &r); err != nil || r.Code == "" {
		return berth.Errorf(berth.CodeInternal, "the server of the shared filesystem answered what can't be read: %.200q", text)
	}
	return berth.Errorf(r.Code, "%s", r.Message)
}

// check says whether a body came whole, by what is behind it.
func check(trailer http.Header, sum string) error {
	if text := trailer.Get(failedTrailer); text != "" {
		return failed([]byte(text))
	}
	if want := trailer.Get(sumTrailer); want != sum {
		return fmt.Errorf("its SHA-256 is %s, and should be %q", sum, want)
	}
	return nil
}
