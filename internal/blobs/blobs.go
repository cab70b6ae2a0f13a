// Package blobs keeps files in a registry, by digest, as the OCI distribution
// specification has it: each is the one layer of an artifact whose tag is the
// digest. What has a tag is there as a whole, and is kept; a blob alone is
// garbage to a registry.
//
// The agent in a task's container uses it, so it imports little.
package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// ArtifactType says of an artifact that it is a file of ours.
const ArtifactType = "application/vnd.berth.file"

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	emptyType    = "application/vnd.oci.empty.v1+json"
	emptyDigest  = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}
)

// Store is the repository of a registry. Errors are *berth.Error.
type Store struct {
	URL       string // of the registry, without /v2/
	Client    *http.Client
	Authorize func(*http.Request) // nil: anybody may
}

// tag is the tag of a file's artifact.
func tag(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// Has reports whether a file is there.
func (s *Store) Has(ctx context.Context, digest string) (bool, error) {
	response, err := s.do(ctx, http.MethodHead, "manifests/"+tag(digest), nil, http.Header{"Accept": {manifestType}}, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return false, err
	}
	return response.StatusCode == http.StatusOK, response.Body.Close()
}

// Open returns the content of a file and how many bytes that has. Reading fails
// at its end where it is not what the digest says. CodeNotFound where there is none.
func (s *Store) Open(ctx context.Context, digest string) (content io.ReadCloser, size int64, err error) {
	response, err := s.do(ctx, http.MethodGet, "blobs/"+digest, nil, nil, http.StatusOK) //nolint:bodyclose // who reads it does
	if err != nil {
		return nil, 0, err
	}
	return &verified{response.Body, sha256.New(), digest}, response.ContentLength, nil
}

// verified is a content that is compared with its digest.
type verified struct {
	io.ReadCloser
	sum    hash.Hash
	digest string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.sum.Write(p[:n])
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		err = berth.Errorf(berth.CodeUnavailable, "the registry went away: %w", err)
	case "sha256:"+hex.EncodeToString(v.sum.Sum(nil)) != v.digest:
		err = berth.Errorf(berth.CodeUnavailable, "the registry gave something else than %s", v.digest)
	}
	return n, err
}

// Put stores a file, and returns its digest and how many bytes it has. Nothing
// is kept of one that could not be read to its end.
func (s *Store) Put(ctx context.Context, content io.Reader) (digest string, size int64, err error) {
	response, err := s.do(ctx, http.MethodPost, "blobs/uploads/", nil, nil, http.StatusAccepted)
	if err != nil {
		return "", 0, err
	}
	response.Body.Close()
	sum := sha256.New()
	counted := &counter{Reader: io.TeeReader(content, sum)}
	response, err = s.follow(ctx, http.MethodPatch, response, "", counted, http.Header{"Content-Type": {"application/octet-stream"}}, http.StatusAccepted)
	if err != nil {
		if counted.err != nil {
			err = counted.err
		}
		return "", 0, err
	}
	response.Body.Close()
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if response, err = s.follow(ctx, http.MethodPut, response, digest, nil, nil, http.StatusCreated); err != nil {
		return "", 0, err
	}
	response.Body.Close()
	return digest, counted.n, s.Keep(ctx, digest, counted.n)
}

// counter counts what is read, and notes why no more could be.
type counter struct {
	io.Reader
	n   int64
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// Keep makes the artifact of a blob that is there; of a file that is kept
// already it says that it is still in use.
func (s *Store) Keep(ctx context.Context, digest string, size int64) error {
	response, err := s.do(ctx, http.MethodPost, "blobs/uploads/?digest="+emptyDigest, strings.NewReader("{}"), http.Header{"Content-Type": {"application/octet-stream"}}, http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode == http.StatusAccepted { // it doesn't take one in a single request, as it need not
		if response, err = s.follow(ctx, http.MethodPut, response, emptyDigest, strings.NewReader("{}"), http.Header{"Content-Type": {"application/octet-stream"}}, http.StatusCreated); err != nil {
			return err
		}
		response.Body.Close()
	}
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	manifest, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		ArtifactType  string       `json:"artifactType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{2, manifestType, ArtifactType, descriptor{emptyType, emptyDigest, 2}, []descriptor{{"application/octet-stream", digest, size}}})
	if err != nil {
		return berth.Errorf(berth.CodeInternal, "%w", err)
	}
	response, err = s.do(ctx, http.MethodPut, "manifests/"+tag(digest), bytes.NewReader(manifest), http.Header{"Content-Type": {manifestType}}, http.StatusCreated)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Expire removes files that nobody put, or kept, since a time, and returns how
// many those were.
func (s *Store) Expire(ctx context.Context, before time.Time) (removed int, err error) {
	for last := ""; ; {
		response, err := s.do(ctx, http.MethodGet, "tags/list?n=1000&last="+last, nil, nil, http.StatusOK, http.StatusNotFound)
		if err != nil {
			return removed, err
		}
		var page struct{ Tags []string }
		if response.StatusCode == http.StatusOK {
			err = json.NewDecoder(response.Body).Decode(&page)
		}
		response.Body.Close()
		if err != nil {
			return removed, berth.Errorf(berth.CodeUnavailable, "the registry's list of files can't be read: %w", err)
		}
		for _, tag := range page.Tags {
			is, err := s.expire(ctx, tag, before)
			if err != nil {
				return removed, err
			}
			if is {
				removed++
			}
			last = tag
		}
		if len(page.Tags) < 1000 {
			return removed, nil
		}
	}
}

func (s *Store) expire(ctx context.Context, tag string, before time.Time) (bool, error) {
	response, err := s.do(ctx, http.MethodHead, "manifests/"+tag, nil, http.Header{"Accept": {manifestType}}, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return false, err
	}
	response.Body.Close()
	kept, err := http.ParseTime(response.Header.Get("Last-Modified"))
	if response.StatusCode == http.StatusNotFound || err != nil || !kept.Before(before) {
		return false, nil //nolint:nilerr // of what is gone, or of unknown age, nothing is removed
	}
	response, err = s.do(ctx, http.MethodDelete, "manifests/"+response.Header.Get("Docker-Content-Digest"), nil, nil, http.StatusAccepted, http.StatusNotFound)
	if err != nil {
		return false, err
	}
	return response.StatusCode == http.StatusAccepted, response.Body.Close()
}

// follow goes on with an upload where its last answer said.
func (s *Store) follow(ctx context.Context, method string, last *http.Response, digest string, body io.Reader, header http.Header, want ...int) (*http.Response, error) {
	base, err := url.Parse(s.URL)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "%w", err)
	}
	next, err := last.Request.URL.Parse(last.Header.Get("Location"))
	if err != nil || next.Host != base.Host || next.Scheme != base.Scheme { // the token is for that address alone
		return nil, berth.Errorf(berth.CodeUnavailable, "the registry sends an upload to %q", last.Header.Get("Location"))
	}
	if digest != "" {
		query := next.Query()
		query.Set("digest", digest)
		next.RawQuery = query.Encode()
	}
	return s.send(ctx, method, next.String(), body, header, want)
}

func (s *Store) do(ctx context.Context, method, path string, body io.Reader, header http.Header, want ...int) (*http.Response, error) {
	return s.send(ctx, method, s.URL+"/v2/"+berth.FilesRepository+"/"+path, body, header, want)
}

func (s *Store) send(ctx context.Context, method, where string, body io.Reader, header http.Header, want []int) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, where, body)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "%w", err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if s.Authorize != nil {
		s.Authorize(request)
	}
	response, err := s.Client.Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, berth.Errorf(berth.CodeUnavailable, "the registry can't be reached: %w", err)
	}
	for _, status := range want {
		if response.StatusCode == status {
			return response, nil
		}
	}
	defer response.Body.Close()
	return nil, refused(response)
}

// refused is the error of an answer that is none of those that were hoped for.
func refused(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	var told struct {
		Errors []struct{ Code, Message string }
	}
	said := strings.TrimSpace(string(text))
	if json.Unmarshal(text, &told) == nil && len(told.Errors) > 0 {
		said = told.Errors[0].Message
	}
	code := berth.CodeUnavailable
	switch response.StatusCode {
	case http.StatusNotFound:
		code = berth.CodeNotFound
	case http.StatusUnauthorized:
		code = berth.CodeUnauthorized
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		code = berth.CodeForbidden
	case http.StatusInsufficientStorage:
		code = berth.CodeExhausted
	}
	return berth.Errorf(code, "the registry answered %s: %s", strconv.Itoa(response.StatusCode)+" "+http.StatusText(response.StatusCode), said)
}

// Again calls fn until it succeeds, fails for good, or has failed for a minute
// because the registry was not there.
func Again(ctx context.Context, fn func() error) error {
	until := time.Now().Add(time.Minute)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := fn()
		if berth.CodeOf(err) != berth.CodeUnavailable || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
