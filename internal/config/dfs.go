package config

import (
	"net/url"
	"path"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// dfs reads mount_dfs: a string, or a map with one as its url.
func (r *reader) dfs(n *yamlstrict.Node) *berth.DFS {
	if !n.Present() {
		return nil
	}
	out := &berth.DFS{KeepWork: berth.KeepFailed, Path: berth.DefaultDFSPath, Image: berth.DefaultDFSImage}
	where := n
	if n.IsMap() {
		fields := n.Fields("url", "path", "read_only", "image", "keep_work", "user")
		where = fields.Require("url", "say what is mounted: redis://HOST:PORT/NUMBER of JuiceFS, or pvc:NAME")
		out.ReadOnly = fields.Get("read_only").Bool()
		if at := fields.Get("path"); at != nil {
			out.Path = dfsPath(at)
		}
		if image := fields.Get("image"); image != nil {
			out.Image = imageName(image)
		}
		if keep := fields.Get("keep_work"); keep != nil {
			out.KeepWork = keepWork(keep)
		}
		if user := fields.Get("user"); user != nil {
			if out.User = nonEmpty(user); out.User != "" {
				if _, _, err := berth.ParseUser(out.User); err != nil {
					user.Rejectf("write numbers, UID or UID:GID, such as 1000:1000")
				}
			}
		}
	}
	text := nonEmpty(where)
	switch claim, isClaim := strings.CutPrefix(text, "pvc:"); {
	case text == "":
	case isClaim && dnsSubdomain.MatchString(claim):
		out.Claim = claim
	case isClaim:
		where.Rejectf("write pvc: and the name of a PersistentVolumeClaim of the namespace")
	default:
		dfsURL(where, text)
		out.URL = berth.Secret(text)
	}
	return out
}

// dfsURL checks the address of JuiceFS's metadata. A password in it is a
// reference, and never shown.
func dfsURL(n *yamlstrict.Node, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "redis" && u.Scheme != "rediss" {
		n.Failf("want redis://HOST:PORT/NUMBER or rediss://..., where JuiceFS has its metadata, or pvc:NAME")
		return
	}
	if _, has := u.User.Password(); has && !n.Referenced() {
		n.Failf("must not hold a password in clear: write it as ${secret:KEY}, ${env:NAME} or ${file:PATH}, as in redis://:${secret:redis}@%s%s", u.Host, u.Path)
	}
}

// systemPaths are where a mount would hide what programs need.
var systemPaths = []string{"/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var"}

func dfsPath(n *yamlstrict.Node) string {
	text := nonEmpty(n)
	if text == "" {
		return ""
	}
	if !path.IsAbs(text) || path.Clean(text) != text || strings.ContainsAny(text, ":\x00") {
		n.Rejectf("want an absolute path such as /data, without . or .. or : in it")
		return ""
	}
	for _, system := range systemPaths {
		if text == system {
			n.Rejectf("would hide what programs need there; take a path of its own such as /data")
		}
	}
	return text
}

// keepWork reads when working folders are kept.
func keepWork(n *yamlstrict.Node) berth.KeepWork {
	keep := berth.KeepWork(nonEmpty(n))
	switch keep {
	case berth.KeepFailed, berth.KeepAlways, berth.KeepNever:
		return keep
	}
	n.Rejectf("choose failed (of tasks that did not succeed), always or never")
	return ""
}
