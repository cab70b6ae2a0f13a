package pack

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

func (r *reader) actions(n *yamlstrict.Node) {
	if n == nil {
		return
	}
	entries := n.Entries()
	if len(entries) == 0 {
		n.FailKeyf("there are none; a package offers at least one function")
	}
	for _, entry := range entries {
		if err := berth.ValidateFunctionName(entry.Key); err != nil {
			entry.FailKeyf("%v", err)
		}
		fn := r.action(entry.Node)
		fn.Name = entry.Key
		r.d.Package.Functions = append(r.d.Package.Functions, fn)
		node := entry.Node
		r.later = append(r.later, func() {
			if err := fn.Check(r.d.Package.Types); err != nil {
				node.FailKeyf("%v", err)
			}
		})
	}
	slices.SortFunc(r.d.Package.Functions, func(a, b berth.Function) int { return strings.Compare(a.Name, b.Name) })
}

func (r *reader) action(n *yamlstrict.Node) berth.Function {
	// pattern is how BraneScript may write a call; here calls have one form.
	f := n.Fields("command", "description", "input", "output", "pattern", "requirements", "endpoint")
	if f.Has("endpoint") {
		f.Get("endpoint").FailKeyf("functions of web services are not built here; write command, and a program that calls the service")
	}
	if f.Get("requirements").Present() {
		r.warn(f.Get("requirements").Warningf("has no effect here; resources are asked for where the function is called"))
	}
	fn := berth.Function{
		Description: f.Get("description").Text(),
		Args:        slices.Clone(r.args),
		Capture:     berth.CaptureComplete,
		Inputs:      r.parameters(f.Get("input"), berth.CheckInput),
		Outputs:     r.parameters(f.Get("output"), berth.CheckOutput),
	}
	command := f.Get("command").Fields("args", "capture")
	for _, item := range command.Get("args").Items() {
		word := item.Scalar()
		if strings.ContainsRune(word, 0) {
			item.Failf("has a NUL byte")
		}
		fn.Args = append(fn.Args, word)
	}
	if capture := command.Get("capture"); capture.Present() {
		fn.Capture = berth.Capture(capture.OneOf("complete", "marked", "prefixed"))
	}
	return fn
}

type check func(berth.Parameter, map[string]berth.Class) error

// parameters is a list of {name, type, ...}, or a map of names to the rest.
// It is never nil: its JSON form is a list.
func (r *reader) parameters(n *yamlstrict.Node, check check) []berth.Parameter {
	parameters := []berth.Parameter{}
	if n.IsMap() {
		for _, entry := range n.Entries() {
			if entry.IsText() {
				parameters = append(parameters, r.typed(berth.Parameter{Name: entry.Key}, entry.Node, entry.Node, check))
				continue
			}
			parameters = append(parameters, r.parameter(entry.Node, entry.Key, check))
		}
		return parameters
	}
	seen := map[string]int{}
	for _, item := range n.Items() {
		p := r.parameter(item, "", check)
		if before, twice := seen[p.Name]; twice && p.Name != "" {
			item.FailKeyf("%s is there already, in line %d; keep one", p.Name, before)
		}
		seen[p.Name] = item.Line()
		parameters = append(parameters, p)
	}
	return parameters
}

func (r *reader) parameter(n *yamlstrict.Node, name string, check check) berth.Parameter {
	known := []string{"name", "type", "description", "default", "example", "optional", "secret", "properties"}
	f := n.Fields(known...)
	if f.Get("properties").Present() {
		f.Get("properties").FailKeyf("properties inside of properties have no name; declare a class under types and use it as the type")
	}
	p := berth.Parameter{Name: name, Description: f.Get("description").Text(), Optional: f.Get("optional").Bool()}
	if name == "" {
		p.Name = f.Require("name", "write {name: NAME, type: TYPE}").Text()
	} else if f.Has("name") && f.Get("name").Text() != name {
		f.Get("name").Rejectf("it is called %s already, by its key", name)
	}
	if secret := f.Get("secret"); secret.Present() {
		r.secret(secret, &p)
	}
	if node := f.Get("default"); node.Present() {
		p.Default = value(node)
	}
	if node := f.Get("example"); node.Present() {
		p.Example = value(node)
	}
	return r.typed(p, f.Require("type", "write type: integer, or another one"), n, check)
}

// typed fills in the type, which may be a class that is declared further down.
func (r *reader) typed(p berth.Parameter, n, whole *yamlstrict.Node, check check) berth.Parameter {
	if n == nil {
		return p
	}
	t, err := berth.ParseType(n.Text())
	if err != nil {
		n.Failf("%v", err)
		return p
	}
	p.Type = t.String()
	r.later = append(r.later, func() {
		if err := t.Check(r.d.Package.Types); err != nil {
			n.Failf("%v", err)
			return
		}
		if err := check(p, r.d.Package.Types); err != nil {
			whole.FailKeyf("%v", err)
		}
	})
	return p
}

// secret is true, or the key of the secret, as Brane has it: then nobody has to
// give it.
func (r *reader) secret(n *yamlstrict.Node, p *berth.Parameter) {
	if !n.IsText() {
		p.Secret = n.Bool()
		return
	}
	reference, ok := berth.SecretReference(n.Text())
	if !ok {
		reference, ok = berth.SecretReference("secret:" + n.Text())
	}
	if !ok {
		n.Failf("want true, or the KEY of a secret: letters, digits, '_', '-' and '.'")
	}
	p.Secret, p.Default = true, json.RawMessage(strconv.Quote(reference))
}

func (r *reader) types(n *yamlstrict.Node) {
	entries := n.Entries()
	if len(entries) == 0 {
		return
	}
	r.d.Package.Types = map[string]berth.Class{}
	for _, entry := range entries {
		f := entry.Fields("name", "properties", "description")
		if name := f.Get("name"); name.Present() && name.Text() != entry.Key {
			name.Rejectf("the class is called %s, by its key", entry.Key)
		}
		none := func(berth.Parameter, map[string]berth.Class) error { return nil } // all of the class is checked below
		class := berth.Class{Properties: r.parameters(f.Get("properties"), none)}
		r.d.Package.Types[entry.Key] = class
	}
	r.later = append(r.later, func() {
		if err := berth.CheckClasses(r.d.Package.Types); err != nil {
			n.FailKeyf("%v", err)
		}
	})
}
