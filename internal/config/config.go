// Package config reads infra.yml, the list of infrastructures, and edits it.
// Text comes in from the file and from what its references name (environment,
// files, secrets.yml beside it); resolved configuration goes out. It is strict:
// what it doesn't know is an error with line and column, because a mistyped
// field that is ignored shows only when it is too late. It reads no kubeconfig
// and contacts nothing; package kube does.
package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// File is an infra.yml, resolved.
type File struct {
	Path            string // absolute
	Default         string // name of the infrastructure for tasks that name none; may be empty
	Infrastructures []berth.InfrastructureConfig
	Logs            berth.LogLimits
	Warnings        []string // for a person; nothing that keeps it from working

	files []string // what else it depends on, for Watch
}

const howToAdd = "add one with: berth infra add NAME --kubeconfig FILE"

// Load reads an infra.yml. CodeNotFound when there is none, CodeInvalid with
// line and column when something is wrong with it.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, berth.Errorf(berth.CodeNotFound, "there is no %s yet, so there is no infrastructure; %s", displayName(path), howToAdd)
	}
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "infra.yml can't be read: %w", err)
	}
	return Parse(path, data, os.LookupEnv)
}

// Parse reads the text of an infra.yml. The path says where references and
// paths start from; env looks up environment variables.
func Parse(path string, data []byte, env func(string) (string, bool)) (*File, error) {
	file, err := parse(path, data, env)
	if err == nil && len(file.Infrastructures) == 0 {
		return nil, berth.Errorf(berth.CodeInvalid, "%s:1:1: there is no infrastructure in it; %s", displayName(path), howToAdd)
	}
	return file, err
}

// parse is Parse for a file that may be without infrastructures still.
func parse(path string, data []byte, env func(string) (string, bool)) (*File, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "infra.yml: %w", err)
	}
	doc, err := yamlstrict.Parse(displayName(path), data)
	if err != nil {
		return nil, err
	}
	refs := &references{dir: filepath.Dir(absolute), env: env}
	doc.Expand = refs.expand
	r := &reader{file: &File{Path: absolute, Logs: berth.DefaultLogLimits}, refs: refs}
	r.top(doc.Root())
	if err := doc.Err(); err != nil {
		return nil, err
	}
	r.file.files = append(r.file.files, refs.files...)
	return r.file, nil
}

// reader turns nodes into a File.
type reader struct {
	file *File
	refs *references
}

func (r *reader) warn(text string) { r.file.Warnings = append(r.file.Warnings, text) }

func (r *reader) top(root *yamlstrict.Node) {
	fields := root.Fields("version", "default", "infrastructures", "locations", "logs")
	if fields.Has("version") {
		fields.Get("version").Int(1, 1)
	}
	if fields.Has("logs") {
		logLimits(fields.Get("logs"), &r.file.Logs)
	}
	list := fields.Get("infrastructures")
	if fields.Has("locations") {
		if list != nil {
			fields.Get("locations").FailKeyf("is another name for infrastructures, which is there as well; keep one")
			return
		}
		list = fields.Get("locations")
	}
	names := map[string]bool{}
	for _, entry := range list.Entries() {
		if err := berth.ValidateInfrastructureName(entry.Key); err != nil {
			entry.FailKeyf("%v", err)
			return
		}
		names[entry.Key] = true
		r.file.Infrastructures = append(r.file.Infrastructures, r.infrastructure(entry))
	}
	if fields.Has("default") {
		r.file.Default = fields.Get("default").Text()
		if len(names) > 0 && !names[r.file.Default] {
			fields.Get("default").Rejectf("no infrastructure has that name; there are %s", strings.Join(r.names(), ", "))
		}
	}
}

// logLimits reads how long logs are kept: a limit may be "none".
func logLimits(n *yamlstrict.Node, to *berth.LogLimits) {
	const none = "none"
	fields := n.Fields("max_age", "max_size")
	if fields.Has("max_age") {
		if age := fields.Get("max_age"); age.Scalar() == none {
			to.MaxAge = 0
		} else {
			to.MaxAge = age.Duration(time.Minute, 100*365*24*time.Hour)
		}
	}
	if fields.Has("max_size") {
		size := fields.Get("max_size")
		if size.Scalar() == none {
			to.MaxSize = 0
			return
		}
		bytes, err := berth.Quantity(size.Scalar()).Bytes()
		if err != nil {
			size.Rejectf("write bytes with a unit such as 512Mi or 10Gi, or none")
		}
		to.MaxSize = bytes
	}
}

func (r *reader) names() []string {
	var names []string
	for _, infra := range r.file.Infrastructures {
		names = append(names, infra.Name)
	}
	return names
}

// path makes a path of infra.yml absolute: it is relative to the file's folder.
func (r *reader) path(n *yamlstrict.Node) string {
	text := nonEmpty(n)
	if text == "" {
		return ""
	}
	path := r.refs.absolute(text)
	r.file.files = append(r.file.files, path)
	return path
}

// displayName is how errors call the file: short when it is at hand.
func displayName(path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	wd, err := os.Getwd()
	if err != nil {
		return absolute
	}
	relative, err := filepath.Rel(wd, absolute)
	if err != nil || !filepath.IsLocal(relative) {
		return absolute
	}
	return relative
}
