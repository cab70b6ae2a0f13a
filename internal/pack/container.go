package pack

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// Load reads the container.yml of a folder, or the one that path itself is.
// All errors are CodeInvalid.
func Load(path string) (*Definition, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "package: %w", err)
	}
	if info.IsDir() {
		folder := path
		path = filepath.Join(folder, "container.yml")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if path = filepath.Join(folder, "container.yaml"); !exists(path) {
				return nil, berth.Errorf(berth.CodeInvalid, "package: there is no container.yml in %s; it says what the package offers", folder)
			}
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "package: %w", err)
	}
	d, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	d.Dir = filepath.Dir(path)
	return d, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Parse reads the text of a container.yml; name is how errors call the file.
// Whether its files exist is for who builds it. All errors are CodeInvalid and
// have a position.
func Parse(name string, data []byte) (*Definition, error) {
	doc, err := yamlstrict.Parse(name, data)
	if err != nil {
		return nil, err
	}
	r := reader{d: &Definition{Path: name, Dir: filepath.Dir(name)}}
	root := doc.Root()
	if !root.Present() {
		root.Failf("the file is empty; write at least name, version, kind, entrypoint and actions")
	}
	r.container(root)
	for _, check := range r.later {
		check()
	}
	if doc.Err() == nil {
		if err := r.d.Package.Validate(); err != nil {
			root.Failf("%v", err)
		}
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return r.d, nil
}

type reader struct {
	d     *Definition
	later []func() // what needs all classes to be known
	args  []string // that the entrypoint has itself
	old   bool     // written for a Brane that installs after it has copied the files
}

func (r *reader) warn(text string) { r.d.Warnings = append(r.d.Warnings, text) }

// elsewhere are fields of other files, or of a Brane that was never released.
var elsewhere = map[string]string{
	"functions":      "write actions, each with command, input and output",
	"steps":          "write dependencies, files, install and unpack at the top of the file",
	"build":          "write dependencies, files, install and unpack at the top of the file",
	"implementation": "write entrypoint: {kind: task, exec: FILE} and actions",
	"cwlVersion":     "this is a CWL document; Berth builds packages of code only",
	"openapi":        "this is an OpenAPI document; Berth builds packages of code only",
}

func (r *reader) container(root *yamlstrict.Node) {
	for _, entry := range root.Entries() {
		if hint, ok := elsewhere[entry.Key]; ok {
			entry.FailKeyf("is no field of container.yml: %s", hint)
			return
		}
	}
	f := root.Fields("name", "version", "kind", "description", "contributors", "owners", "base", "dependencies", "environment", "files",
		"install", "unpack", "initialize", "entrypoint", "actions", "types", "docker", "postinstall", "post-install", "post_install")
	p := &r.d.Package
	p.WorkDir = WorkDir
	p.Name = checked(f.Require("name", "write name: my_package"), (*yamlstrict.Node).Text, berth.ValidatePackageName)
	p.Version = checked(f.Require("version", "write version: 1.0.0"), (*yamlstrict.Node).Scalar, berth.ValidatePackageVersion)
	p.Description = f.Get("description").Text()
	f.Get("contributors").Texts()
	f.Get("owners").Texts()
	r.kind(f.Get("kind"))
	if f.Get("docker").Bool() {
		r.warn(f.Get("docker").Warningf("has no effect: no Docker Engine is handed into a package here"))
	}
	r.build(f)
	r.entrypoint(f.Require("entrypoint", "write entrypoint: {kind: task, exec: FILE}, the program that is run"))
	r.types(f.Get("types"))
	r.actions(f.Require("actions", "write the functions that the package offers, each with command, input and output"))
}

// checked is a scalar with a check of the domain.
func checked(n *yamlstrict.Node, read func(*yamlstrict.Node) string, check func(string) error) string {
	if n == nil {
		return ""
	}
	text := read(n)
	if err := check(text); err != nil {
		n.Failf("%v", err)
	}
	return text
}

// kind knows the words of both Branes: compute, and what else was free to be
// written there, is ecu now.
func (r *reader) kind(n *yamlstrict.Node) {
	r.d.Package.Kind = "ecu"
	if n == nil {
		return
	}
	switch kind := n.Text(); kind {
	case "ecu":
	case "compute", "remote", "output", "input", "data", "task", "service", "code":
		r.old = true
	case "oas", "api", "cwl", "dsl":
		n.Rejectf("Berth builds packages of code only; write kind: ecu for one")
	default:
		n.Rejectf("write kind: ecu")
	}
}
