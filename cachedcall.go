package berth

import (
	"encoding/json"
	"time"
)

// CachedCall is what a call of a workflow gave, for which the program asked with
// cache = True: an equal call of the same owner is answered by it.
type CachedCall struct {
	ID      string          `json:"id"`
	Digest  string          `json:"digest"` // of the image, the function and the arguments
	Owner   string          `json:"owner"`
	Name    string          `json:"name"`  // of what was called
	Image   string          `json:"image"` // by its digest
	Package string          `json:"package,omitempty"`
	Version string          `json:"version,omitempty"`
	Task    string          `json:"task"`
	Run     string          `json:"run"`
	Result  json.RawMessage `json:"result"`

	Infrastructure string            `json:"infrastructure,omitempty"` // where it was made
	Files          map[string]string `json:"files,omitempty"`          // the paths in the result, and the digests of what was there

	CreatedAt time.Time `json:"createdAt"`
}

// CacheQuery selects cached calls, newest first. Who is asked shows, and clears,
// those of the caller alone; an admin's are everybody's.
type CacheQuery struct {
	Owner   string    // empty: all that the caller may see
	Package string    // empty: of any package, and of plain images
	Before  time.Time // only those that were stored before; zero: all
	Limit   int       // at most this many; 0 means 100
	After   string    // id of the last one of the page before
}

// CachePage is one page of cached calls.
type CachePage struct {
	Calls []CachedCall
	Next  string // After of the next page; empty at the end
}

// NoSuchCachedCall is the error for a call that nothing is known of.
func NoSuchCachedCall(digest string) error {
	return Errorf(CodeNotFound, "no call %s is in the cache", digest)
}
