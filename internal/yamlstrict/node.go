package yamlstrict

import (
	"fmt"
	"strconv"

	"github.com/goccy/go-yaml/ast"
)

// Node is a value of a document, or its absence: all methods work on a nil
// Node, which is a field that wasn't written.
type Node struct {
	doc                *Document
	value              ast.Node // nil: null, or nothing at all
	path               string
	line, column       int // of the value
	keyLine, keyColumn int
}

// set resolves anchors and aliases.
func (n *Node) set(value ast.Node) {
	n.line, n.column = position(value)
	for range 100 { // aliases of aliases end somewhere; loops don't
		switch v := value.(type) {
		case *ast.AnchorNode:
			value = v.Value
		case *ast.AliasNode:
			name := v.Value.GetToken().Value
			target, ok := n.doc.anchors[name]
			if !ok {
				n.Failf("*%s refers to no anchor &%s", name, name)
				return
			}
			value = target
		case *ast.TagNode:
			n.Failf("tags (%s) are not understood here; write the value without", v.Start.Value)
			return
		case *ast.NullNode, nil: // which is nowhere in particular
			n.line, n.column = n.keyLine, n.keyColumn
			return
		default:
			n.value = value
			return
		}
	}
	n.Failf("the alias refers to itself")
}

// Present reports whether there is a value other than null.
func (n *Node) Present() bool { return n != nil && n.value != nil }

// Path names the node: infrastructures.a.kind.
func (n *Node) Path() string {
	if n == nil {
		return ""
	}
	return n.path
}

// Line is where the node's key is, from 1.
func (n *Node) Line() int { return n.keyLine }

// Column is where the node's key is, from 1.
func (n *Node) Column() int { return n.keyColumn }

// Flow reports whether the node is a map or list in brackets.
func (n *Node) Flow() bool {
	switch v := n.value.(type) {
	case *ast.MappingNode:
		return v.IsFlowStyle
	case *ast.SequenceNode:
		return v.IsFlowStyle
	}
	return false
}

// Failf records what is wrong with the value. The text must not hold values.
func (n *Node) Failf(format string, args ...any) {
	if n != nil {
		n.doc.fail(n.line, n.column, n.path, format, args...)
	}
}

// FailKeyf records what is wrong with the field as such.
func (n *Node) FailKeyf(format string, args ...any) {
	if n != nil {
		n.doc.fail(n.keyLine, n.keyColumn, n.path, format, args...)
	}
}

// Rejectf records that a value isn't usable and shows it as it was written,
// with references unresolved. The text says what would be right. It is not for
// fields that hold secrets.
func (n *Node) Rejectf(format string, args ...any) {
	if n != nil {
		n.Failf("%s is not usable: %s", n.shown(), fmt.Sprintf(format, args...))
	}
}

func (n *Node) shown() string {
	text := n.written()
	if len(text) > 80 {
		text = text[:80] + "..."
	}
	return strconv.Quote(text)
}

// Warningf returns a text with the position, for what is no mistake.
func (n *Node) Warningf(format string, args ...any) string {
	return fmt.Sprintf("%s:%d:%d: %s: %s", n.doc.name, n.line, n.column, n.path, fmt.Sprintf(format, args...))
}

// written is a scalar as it stands in the file.
func (n *Node) written() string {
	switch v := n.value.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		if v.Value == nil {
			return ""
		}
		return v.Value.Value
	case nil:
		return ""
	}
	if tk := n.value.GetToken(); tk != nil {
		return tk.Value
	}
	return ""
}

func (n *Node) kind() string {
	switch n.value.(type) {
	case nil:
		return "nothing"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	case *ast.SequenceNode:
		return "a list"
	}
	return "something else"
}

func (n *Node) wrong(want string) { n.Failf("want %s, but this is %s", want, n.kind()) }

// Items are the elements of a list. Absent is none.
func (n *Node) Items() []*Node {
	if !n.Present() {
		return nil
	}
	list, ok := n.value.(*ast.SequenceNode)
	if !ok {
		n.wrong("a list")
		return nil
	}
	items := make([]*Node, 0, len(list.Values))
	for i, value := range list.Values {
		line, column := position(value)
		item := &Node{doc: n.doc, path: fmt.Sprintf("%s[%d]", n.path, i), keyLine: line, keyColumn: column}
		item.set(value)
		items = append(items, item)
	}
	return items
}

// Texts is a list of strings.
func (n *Node) Texts() []string {
	var texts []string
	for _, item := range n.Items() {
		texts = append(texts, item.Text())
	}
	return texts
}

// TextMap is a map of names to strings; numbers and truth values are taken as
// they are written.
func (n *Node) TextMap() map[string]string {
	entries := n.Entries()
	if len(entries) == 0 {
		return nil
	}
	texts := make(map[string]string, len(entries))
	for _, entry := range entries {
		texts[entry.Key] = entry.Scalar()
	}
	return texts
}

// IsMap reports whether there is a map.
func (n *Node) IsMap() bool { return n.Present() && n.kind() == "a map" }

// IsList reports whether there is a list.
func (n *Node) IsList() bool { return n.Present() && n.kind() == "a list" }

// IsText reports whether there is a string.
func (n *Node) IsText() bool { return n.Present() && n.kind() == "a string" }
