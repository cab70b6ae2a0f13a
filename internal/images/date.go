package images

import (
	"net/http"
	"sync"
	"time"
)

// dates notes when a registry says that it stored what it answers with. An
// image has no time of its own: the same source gives the same digest.
type dates struct {
	next http.RoundTripper

	mu    sync.Mutex
	known map[string]time.Time // by digest
}

func (d *dates) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := d.next.RoundTrip(r)
	if err != nil {
		return response, err
	}
	if at, err := http.ParseTime(response.Header.Get("Last-Modified")); err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.known == nil {
			d.known = map[string]time.Time{}
		}
		d.known[response.Header.Get("Docker-Content-Digest")] = at.UTC()
	}
	return response, nil
}

func (d *dates) at(digest string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[digest]
}
