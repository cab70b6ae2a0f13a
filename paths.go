package berth

import (
	"bytes"
	"encoding/json"
	"maps"
	"strconv"
	"strings"
)

// MapPaths replaces each path in a value, which is where its type has File or
// Directory, by what fn makes of it, and returns the value in canonical form.
// The value is one that [CheckValue] took. Where is what an error calls the
// path's place, such as points[3].source; the first error of fn ends it.
func MapPaths(where string, t Type, classes map[string]Class, value json.RawMessage, fn func(where string, t Type, path string) (string, error)) (json.RawMessage, error) {
	if !HasPaths(t, classes) || isNull(value) {
		return value, nil
	}
	var out bytes.Buffer
	m := pathMapper{classes, fn, &out}
	if err := m.value(where, t, value); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// MapResultPaths is [MapPaths] for what a function gives: the value of its one
// output, or an object of all of them.
func MapResultPaths(fn *Function, classes map[string]Class, result json.RawMessage, replace func(where string, t Type, path string) (string, error)) (json.RawMessage, error) {
	switch len(fn.Outputs) {
	case 0:
		return result, nil
	case 1:
		t, err := ParseType(fn.Outputs[0].Type)
		if err != nil {
			return result, nil //nolint:nilerr // it was checked when the package was built
		}
		return MapPaths(fn.Outputs[0].Name, t, classes, result, replace)
	}
	// They are as a class of the outputs would be.
	const all = "\x00outputs"
	whole := map[string]Class{all: {Properties: fn.Outputs}}
	maps.Copy(whole, classes)
	return MapPaths("", Type{Base: all}, whole, result, func(where string, t Type, path string) (string, error) {
		return replace(strings.TrimPrefix(where, "."), t, path)
	})
}

// HasPaths reports whether values of a type may hold paths. Classes don't
// contain themselves.
func HasPaths(t Type, classes map[string]Class) bool {
	if t.Base == TypeFile || t.Base == TypeDirectory {
		return true
	}
	for _, p := range classes[t.Base].Properties {
		if inner, err := ParseType(p.Type); err == nil && HasPaths(inner, classes) {
			return true
		}
	}
	return false
}

type pathMapper struct {
	classes map[string]Class
	fn      func(where string, t Type, path string) (string, error)
	out     *bytes.Buffer
}

func (m *pathMapper) value(where string, t Type, value json.RawMessage) error {
	switch {
	case !HasPaths(t, m.classes):
		m.out.Write(value)
		return nil
	case t.Dimensions > 0:
		return m.array(where, t, value)
	case !t.Builtin():
		return m.object(where, t, value)
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return wrongType(where, t, value)
	}
	text, err := m.fn(where, t, text)
	if err == nil {
		writeString(m.out, text)
	}
	return err
}

func (m *pathMapper) array(where string, t Type, value json.RawMessage) error {
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil {
		return wrongType(where, t, value)
	}
	m.out.WriteByte('[')
	for i, element := range elements {
		if i > 0 {
			m.out.WriteByte(',')
		}
		if err := m.value(where+"["+strconv.Itoa(i)+"]", t.Element(), element); err != nil {
			return err
		}
	}
	m.out.WriteByte(']')
	return nil
}

func (m *pathMapper) object(where string, t Type, value json.RawMessage) error {
	members, err := readObject(where, value)
	if err != nil {
		return err
	}
	types := map[string]string{}
	for _, p := range m.classes[t.Base].Properties {
		types[p.Name] = p.Type
	}
	m.out.WriteByte('{')
	for i, member := range members {
		inner, err := ParseType(types[member.key])
		if err != nil {
			return wrongType(where, t, value)
		}
		if i > 0 {
			m.out.WriteByte(',')
		}
		writeString(m.out, member.key)
		m.out.WriteByte(':')
		if err := m.value(where+"."+member.key, inner, member.value); err != nil {
			return err
		}
	}
	m.out.WriteByte('}')
	return nil
}
