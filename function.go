package berth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berth-run/berth/internal/nearest"
)

// Lookup is Function with an error for a person, which has the nearest name. It
// is CodeInvalid.
func (p *Package) Lookup(name string) (*Function, error) {
	if fn := p.Function(name); fn != nil {
		return fn, nil
	}
	var names []string
	for _, fn := range p.Functions {
		names = append(names, fn.Name)
	}
	return nil, Errorf(CodeInvalid, "%s", unknown("function", name, "of package "+p.Name, names))
}

// unknown says that a name is none of those that there are.
func unknown(what, name, where string, names []string) string {
	text := fmt.Sprintf("%s is no %s %s", show(name), what, where)
	if len(names) == 0 {
		return text + "; there are none"
	}
	if near := nearest.Word(name, names); near != "" {
		text += "; did you mean " + near + "?"
		if len(names) == 1 {
			return text
		}
		return text + " There are " + strings.Join(names, ", ")
	}
	return text + "; there are " + strings.Join(names, ", ")
}

// Input returns an input by name, or nil.
func (f *Function) Input(name string) *Parameter {
	for i := range f.Inputs {
		if f.Inputs[i].Name == name {
			return &f.Inputs[i]
		}
	}
	return nil
}

func (f *Function) inputNames() []string {
	var names []string
	for _, in := range f.Inputs {
		names = append(names, in.Name)
	}
	return names
}

func (f *Function) signature() string { return signature(f.Inputs) }

// signature lists parameters as people read them: a (integer), b (string, optional).
func signature(parameters []Parameter) string {
	if len(parameters) == 0 {
		return "none"
	}
	var parts []string
	for _, p := range parameters {
		text := p.Name + " (" + p.Type
		switch {
		case p.Secret:
			text += ", secret"
		case p.Default != nil:
			text += ", default " + shorten(compact(p.Default))
		case p.Optional:
			text += ", optional"
		}
		parts = append(parts, text+")")
	}
	return strings.Join(parts, ", ")
}

func sortedKeys(m map[string]json.RawMessage) []string { return slices.Sorted(maps.Keys(m)) }

func quoteJSON(text string) json.RawMessage {
	var out bytes.Buffer
	writeString(&out, text)
	return out.Bytes()
}
