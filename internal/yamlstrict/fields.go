package yamlstrict

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/berth-run/berth/internal/nearest"
)

// Entry is one entry of a map.
type Entry struct {
	Key string
	*Node
}

// Entries are the entries of a map in the order of the file. A key that is
// there twice is a mistake. Absent is none.
func (n *Node) Entries() []Entry {
	if !n.Present() {
		return nil
	}
	var values []*ast.MappingValueNode
	switch v := n.value.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		n.wrong("a map")
		return nil
	}
	entries := make([]Entry, 0, len(values))
	seen := map[string]int{}
	for _, value := range values {
		line, column := position(value)
		key, ok := keyOf(value.Key)
		if !ok {
			n.doc.fail(line, column, n.path, "write the name of a field plainly here, without <<, ? or tags")
			return nil
		}
		entry := Entry{Key: key, Node: &Node{doc: n.doc, path: join(n.path, key), keyLine: line, keyColumn: column, line: line, column: column}}
		if before, twice := seen[key]; twice {
			entry.FailKeyf("is there twice, first in line %d; keep one", before)
			return nil
		}
		seen[key] = line
		if value.Value != nil {
			entry.set(value.Value)
		}
		entries = append(entries, entry)
	}
	return entries
}

func keyOf(key ast.MapKeyNode) (string, bool) {
	switch key.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return key.GetToken().Value, true
	}
	return "", false
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Fields is a map whose keys are known beforehand.
type Fields struct {
	node   *Node
	fields map[string]*Node
}

// Fields reads the node as a map with no other keys than those known. A key
// that isn't is a mistake, for which the nearest one is suggested.
func (n *Node) Fields(known ...string) *Fields {
	f := &Fields{node: n, fields: map[string]*Node{}}
	for _, entry := range n.Entries() {
		if !slices.Contains(known, entry.Key) {
			if near := nearest.Word(entry.Key, known); near != "" {
				entry.FailKeyf("unknown field; did you mean %s?", near)
			} else {
				entry.FailKeyf("unknown field; there are %s", strings.Join(known, ", "))
			}
			return f
		}
		f.fields[entry.Key] = entry.Node
	}
	return f
}

// Get returns a field, or nil when it wasn't written.
func (f *Fields) Get(name string) *Node { return f.fields[name] }

// Has reports whether a field was written, be it null.
func (f *Fields) Has(name string) bool { return f.fields[name] != nil }

// Require returns a field that must be there.
func (f *Fields) Require(name, what string) *Node {
	n := f.fields[name]
	if n == nil {
		f.node.FailKeyf("%s is missing: %s", name, what)
	}
	return n
}
