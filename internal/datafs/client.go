package datafs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Client reads and writes what a Server serves. Errors are *berth.Error, or
// wrap ErrAway.
type Client struct {
	http  *http.Client
	token string
}

// ErrAway says that the server is not there, or went away in the middle.
var ErrAway = errors.New("the pod that serves the shared filesystem can't be reached")

// NewClient returns a client whose connections dial makes.
func NewClient(dial func(context.Context) (net.Conn, error), token string) *Client {
	return &Client{token: token, http: &http.Client{Transport: &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:    true,             // files are what they are, and the sums are of that
		ExpectContinueTimeout: 10 * time.Second, // what is put is asked for first
		IdleConnTimeout:       30 * time.Second, MaxIdleConnsPerHost: 4,
		ReadBufferSize: 256 << 10, WriteBufferSize: 256 << 10,
	}}}
}

// Close lets go of the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) do(ctx context.Context, method, where string, query url.Values, body io.Reader, prepare func(*http.Request)) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://data"+where+"?"+query.Encode(), body)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInternal, "%w", err)
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if prepare != nil {
		prepare(request)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var told *berth.Error
		if errors.As(err, &told) {
			return nil, told // of dial, or of what was to be sent
		}
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return nil, failed(text)
}

// Ping says whether the server answers.
func (c *Client) Ping(ctx context.Context) error {
	response, err := c.do(ctx, http.MethodGet, healthPath, nil, nil, nil)
	if err == nil {
		err = response.Body.Close()
	}
	return err
}

func where(relative string, recursive bool) url.Values {
	return url.Values{"path": {relative}, "recursive": {strconv.FormatBool(recursive)}}
}

// List yields what [Tree.List] does.
func (c *Client) List(ctx context.Context, relative string, recursive bool) iter.Seq2[berth.DataEntry, error] {
	return func(yield func(berth.DataEntry, error) bool) {
		var none berth.DataEntry
		response, err := c.do(ctx, http.MethodGet, entriesPath, where(relative, recursive), nil, nil)
		if err != nil {
			yield(none, err)
			return
		}
		defer response.Body.Close()
		lines := json.NewDecoder(bufio.NewReaderSize(response.Body, 64<<10))
		for {
			var entry berth.DataEntry
			err := lines.Decode(&entry)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(none, fmt.Errorf("%w: %w", ErrAway, err))
				return
			}
			if !yield(entry, nil) {
				return
			}
		}
		if text := response.Trailer.Get(failedTrailer); text != "" {
			yield(none, failed([]byte(text)))
		}
	}
}

// Get yields a file's content, or a directory's as a tar archive. The last
// chunk says that all of it came, and was compared with its SHA-256.
func (c *Client) Get(ctx context.Context, relative string, recursive bool) iter.Seq2[berth.DataChunk, error] {
	return func(yield func(berth.DataChunk, error) bool) {
		var none berth.DataChunk
		response, err := c.do(ctx, http.MethodGet, contentPath, where(relative, recursive), nil, nil)
		if err != nil {
			yield(none, err)
			return
		}
		defer response.Body.Close()
		first := berth.DataChunk{Entry: &berth.DataEntry{}}
		text, err := strconv.Unquote(response.Header.Get(entryHeader))
		if err == nil {
			err = json.Unmarshal([]byte(text), first.Entry)
		}
		if err != nil {
			yield(none, berth.Errorf(berth.CodeInternal, "the server of the shared filesystem does not say what it sends: %w", err))
			return
		}
		if !yield(first, nil) {
			return
		}
		body := &summed{Reader: response.Body, sum: sha256.New()}
		for {
			buffer := make([]byte, chunkSize) // whoever gets it may keep it
			n, err := io.ReadFull(body, buffer)
			if n > 0 && !yield(berth.DataChunk{Data: buffer[:n]}, nil) {
				return
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && body.ended {
				break
			}
			if err != nil {
				if ctx.Err() != nil {
					err = ctx.Err()
				} else {
					err = fmt.Errorf("%w: %w", ErrAway, err)
				}
				yield(none, err)
				return
			}
		}
		sum := hex.EncodeToString(body.sum.Sum(nil))
		if err := check(response.Trailer, sum); err != nil {
			var told *berth.Error
			if !errors.As(err, &told) {
				err = berth.Errorf(berth.CodeUnavailable, "%s did not come whole: %w", first.Entry.Path, err)
			}
			yield(none, err)
			return
		}
		skipped, _ := strconv.Atoi(response.Trailer.Get(skippedHeader)) // none where it doesn't say
		yield(berth.DataChunk{End: &berth.DataEnd{Size: body.size, SHA256: sum, Skipped: skipped}}, nil)
	}
}

// chunkSize is how much of a content goes together.
const chunkSize = 512 << 10

// Put writes a file, or a directory from a tar archive. What the content's
// reader fails with is the error.
func (c *Client) Put(ctx context.Context, relative string, put berth.DataPut, content io.Reader) (berth.DataEntry, error) {
	var entry berth.DataEntry
	query := where(relative, false)
	query.Set("name", put.Name)
	query.Set("folder", strconv.FormatBool(strings.HasSuffix(put.Path, "/")))
	query.Set("directory", strconv.FormatBool(put.Directory))
	query.Set("mode", strconv.FormatUint(uint64(put.Mode), 8))
	trailer := http.Header{sumTrailer: nil}
	body := &sent{summed: summed{Reader: content, sum: sha256.New()}, trailer: trailer}
	response, err := c.do(ctx, http.MethodPut, contentPath, query, body, func(r *http.Request) {
		r.ContentLength, r.Trailer = -1, trailer
		r.Header.Set("Expect", "100-continue") // a refusal needs no content
	})
	if err != nil {
		if body.failed != nil && ctx.Err() == nil {
			return entry, body.failed
		}
		return entry, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(data)).Decode(&entry)
	}
	if err != nil {
		return entry, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return entry, nil
}

// sent is what is put: at its end its sum goes behind it.
type sent struct {
	summed
	trailer http.Header
	failed  error
}

func (s *sent) Read(p []byte) (int, error) {
	n, err := s.summed.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		s.trailer.Set(sumTrailer, hex.EncodeToString(s.sum.Sum(nil)))
	case err != nil:
		s.failed = err
	}
	return n, err
}

// Remove removes what [Tree.Remove] does.
func (c *Client) Remove(ctx context.Context, relative string, recursive bool) error {
	response, err := c.do(ctx, http.MethodDelete, contentPath, where(relative, recursive), nil, nil)
	if err == nil {
		err = response.Body.Close()
	}
	return err
}
