package dashboard

import (
	"net/url"
	"strings"
)

// address is a path of the origin: /<cluster>/<rest>.
type address struct {
	cluster string
	rest    string // as it was sent, percent-encoded
}

// addressOf takes a path apart. Not ok: one that is none of a cluster, or that
// could mean another one to somebody else, as it has dot segments or backslashes.
func addressOf(u *url.URL) (address, bool) {
	path := u.EscapedPath()
	id, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !strings.HasPrefix(path, "/") || !isID(id) {
		return address{}, false
	}
	for segment := range strings.SplitSeq(rest, "/") {
		plain, err := url.PathUnescape(segment)
		if err != nil || plain == "." || plain == ".." || strings.ContainsRune(segment, '\\') {
			return address{}, false
		}
	}
	return address{cluster: id, rest: rest}, true
}
