package dashboard

import "strings"

// pages are the first segments of what passes to a cluster: those of Dask's
// dashboards, of what they load, and of what programs that embed them ask for.
//
// It is a list of what may pass and not of what may not, since plugins of a
// scheduler add routes of their own to the same server. What is not in it: api/
// (closes workers), berth/ (drains them), proxy/ (fetches from any host and port
// that the head reaches), jupyter/ (runs what one types).
var pages = map[string]bool{
	// distributed.dashboard.scheduler; plots alone begin with "individual-"
	"status": true, "workers": true, "tasks": true, "system": true, "profile": true, "profile-server": true,
	"graph": true, "groups": true, "gpu": true, "hardware": true, "shuffle": true, "shuffling": true, "stealing": true,
	"events": true, "exceptions": true, "counters": true,
	// distributed.http
	"info": true, "json": true, "eventstream": true, "health": true, "metrics": true, "sitemap.json": true, "statics": true,
	// Bokeh
	"static": true, "favicon.ico": true,
}

const plotPrefix = "individual-"

// isPage reports whether an address belongs to a dashboard.
func (a address) isPage() bool {
	first, _, _ := strings.Cut(a.rest, "/")
	return pages[first] || strings.HasPrefix(first, plotPrefix)
}
