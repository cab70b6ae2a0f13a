package dashboard

import (
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/berth-run/berth"
)

// site is where a browser believes to be.
type site struct {
	origin  string // https://dashboards.example.org:8443
	host    string // of it, with the port
	secure  bool
	own     bool   // the cluster has the host for itself
	cluster string // whose host it is; empty where clusters share one
}

// hostName is what may stand in a Content-Security-Policy, which has no form for
// addresses of IPv6.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252})(:[0-9]{1,5})?$`)

// site returns where a request was sent to. Not ok: a host that is not ours, or
// that could not be protected.
func (h *handler) site(r *http.Request) (site, bool) {
	if !hostName.MatchString(r.Host) {
		return site{}, false
	}
	s := h.siteOf(r.Host)
	if h.options.Domain == "" {
		return s, true
	}
	name := strings.ToLower(r.Host)
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.TrimSuffix(name, ".")
	if name == h.options.Domain {
		return s, true
	}
	id, ok := strings.CutSuffix(name, "."+h.options.Domain)
	s.own, s.cluster = true, id
	return s, ok && isID(id)
}

func (h *handler) siteOf(host string) site {
	s := site{host: host, secure: h.options.Secure, origin: "http://" + host}
	if s.secure {
		s.origin = "https://" + host
	}
	return s
}

// pageOf is where the dashboard of a cluster begins.
func (s *site) pageOf(cluster string) string { return "/" + cluster + "/status" }

// isID reports whether a text has the form of the id of a cluster, as which it
// may stand in paths, names of hosts and headers.
func isID(id string) bool {
	return berth.IsClusterID(id) && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
