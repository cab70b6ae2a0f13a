package pack

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

var (
	// Words that reach a package manager's command line.
	dependency = regexp.MustCompile(`^[-A-Za-z0-9+.:=~_/@*]+$`)
	variable   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// build reads how the image is made.
func (r *reader) build(f *yamlstrict.Fields) {
	d := r.d
	if base := f.Get("base"); base.Present() {
		d.Base = checked(base, (*yamlstrict.Node).Text, berth.ValidateImage)
	}
	for _, item := range f.Get("dependencies").Items() {
		for _, word := range strings.Fields(item.Scalar()) {
			if !dependency.MatchString(word) {
				item.Rejectf("write the name of a package, such as python3 or zlib1g=1:1.2.11")
			}
			d.Dependencies = append(d.Dependencies, word)
		}
	}
	for _, entry := range f.Get("environment").Entries() {
		if !variable.MatchString(entry.Key) {
			entry.FailKeyf("the name of a variable is letters, digits and '_', not beginning with a digit")
		}
		v := berth.EnvVar{Name: entry.Key, Value: entry.Scalar()}
		if strings.ContainsAny(v.Value, "\x00\n") {
			entry.Failf("a value must be one line")
		}
		d.Environment = append(d.Environment, v)
	}
	r.files(f.Get("files"))
	d.Package.Initialize = texts(lines(f.Get("initialize")))
	if len(d.Package.Initialize) == 0 && slices.ContainsFunc(d.Files, func(f File) bool { return f.Path == "init.sh" }) {
		d.Package.Initialize = []string{"./init.sh"} // Brane runs a file of this name
	}
	var named []string
	for _, name := range []string{"unpack", "postinstall", "post-install", "post_install"} {
		if f.Has(name) {
			named = append(named, name)
			d.Unpack = lines(f.Get(name))
		}
	}
	if len(named) > 1 {
		f.Get(named[1]).FailKeyf("is the same as %s; keep one", named[0])
	}
	r.install(lines(f.Get("install")))
}

// install decides when a line of install is run. Newer Branes run it before
// the files are there, older ones after, and packages of both are around: from
// the first line on that uses a file of the package, it is after.
func (r *reader) install(lines []Line) {
	at := 0
	for !r.old && at < len(lines) && !r.uses(lines[at].Text) {
		at++
	}
	if r.old {
		at = 0
	}
	r.d.Install = lines[:at:at]
	r.d.Unpack = append(lines[at:len(lines):len(lines)], r.d.Unpack...)
}

var words = regexp.MustCompile(`[^\s'"=;&|()<>]+`)

// uses reports whether a command names a file of the package, or the folder
// that it is run in.
func (r *reader) uses(command string) bool {
	for _, word := range words.FindAllString(command, -1) {
		clean := path.Clean(word)
		if clean == "." && strings.HasPrefix(word, ".") {
			return len(r.d.Files) > 0
		}
		clean = strings.TrimPrefix(clean, WorkDir+"/")
		for _, file := range r.d.Files {
			if file.Path == "." || clean == file.Path || strings.HasPrefix(clean, file.Path+"/") {
				return true
			}
		}
		if strings.HasPrefix(word, "./") && len(r.d.Files) > 0 {
			return true
		}
	}
	return false
}

func (r *reader) files(n *yamlstrict.Node) {
	for _, item := range n.Items() {
		text := item.Scalar()
		clean := path.Clean(text)
		switch {
		case text == "" || strings.ContainsAny(text, "\x00\n"):
			item.Rejectf("write the path of a file or folder")
		case strings.Contains(text, `\`):
			item.Rejectf("write / between folders")
		case path.IsAbs(clean), clean == "..", strings.HasPrefix(clean, "../"):
			item.Rejectf("files are relative to the folder of container.yml and inside of it")
		case slices.ContainsFunc(r.d.Files, func(f File) bool { return f.Path == clean }):
			item.Rejectf("it is there already; keep one")
		}
		r.d.Files = append(r.d.Files, File{Path: clean, Line: item.Line()})
	}
}

// lines is a list of shell commands.
func lines(n *yamlstrict.Node) []Line {
	var lines []Line
	for _, item := range n.Items() {
		text := item.Text()
		if strings.TrimSpace(text) == "" {
			item.Failf("the command is empty")
		}
		if strings.ContainsRune(text, 0) {
			item.Failf("the command has a NUL byte")
		}
		lines = append(lines, Line{Text: text, Line: item.Line()})
	}
	return lines
}

func texts(lines []Line) []string {
	var texts []string
	for _, line := range lines {
		texts = append(texts, line.Text)
	}
	return texts
}

func (r *reader) entrypoint(n *yamlstrict.Node) {
	if n == nil {
		return
	}
	f := n.Fields("kind", "exec", "content", "delay")
	for _, name := range []string{"content", "delay"} {
		if f.Get(name).Present() {
			r.warn(f.Get(name).Warningf("has no effect here"))
		}
	}
	if kind := f.Get("kind"); kind != nil && kind.OneOf("task", "service") == "service" {
		r.warn(kind.Warningf("a service is run as a task: a call waits for the program's end; berth call --detach doesn't"))
	}
	exec := f.Require("exec", "write exec: FILE, the program that is run")
	if exec == nil {
		return
	}
	text := strings.TrimSpace(exec.Text())
	file := func(path string) bool {
		return slices.ContainsFunc(r.d.Files, func(f File) bool { return inside(path, f.Path) })
	}
	if !file(path.Clean(text)) { // a file may have blanks in its name; else words after the first are arguments
		if words := strings.Fields(text); len(words) > 1 {
			text, r.args = words[0], words[1:]
		}
	}
	clean := path.Clean(text)
	switch {
	case text == "" || strings.ContainsRune(text, 0):
		exec.Rejectf("write the file of the program")
	case strings.HasSuffix(text, "/") || clean == ".":
		exec.Rejectf("that is a folder; write the file of the program")
	case clean == ".." || strings.HasPrefix(clean, "../"):
		exec.Rejectf("it has to be inside the package's folder")
	case !path.IsAbs(clean) && !file(clean):
		r.warn(exec.Warningf("%s isn't among files: it has to be in the base image, or made by install or unpack", clean))
	}
	r.d.Package.Entrypoint = berth.Entrypoint{Kind: "task", Exec: clean}
}

// inside reports whether a path is that of a file or below that of a folder.
func inside(name, file string) bool {
	if file == "." {
		return !path.IsAbs(name)
	}
	return name == file || strings.HasPrefix(name, file+"/")
}
