package yamlstrict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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

// Text is a string with its references replaced. Absent is "".
func (n *Node) Text() string {
	if n == nil {
		return ""
	}
	switch n.value.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return n.expanded()
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		n.Failf("want a string, but this is %s; put it into quotes", n.kind())
	default:
		n.wrong("a string")
	}
	return ""
}

// Scalar is a string, or a number or truth value just as it is written.
func (n *Node) Scalar() string {
	if n == nil {
		return ""
	}
	switch n.value.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return n.expanded()
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.written()
	case nil:
		n.Failf(`there is no value; write "" for an empty one`)
	default:
		n.wrong("a string or a number")
	}
	return ""
}

func (n *Node) expanded() string {
	text, _ := n.expand()
	return text
}

func (n *Node) expand() (text string, had bool) {
	text = n.written()
	if n.doc.Expand == nil {
		return text, false
	}
	text, had, err := n.doc.Expand(text)
	if err != nil {
		n.Failf("%v", err)
		return "", true
	}
	return text, had
}

// number is the text of a number, written as such or come from a reference.
func (n *Node) number(want string) (string, bool) {
	if n == nil {
		return "", false
	}
	switch n.value.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return n.written(), true
	case *ast.StringNode:
		if text, had := n.expand(); had {
			return strings.TrimSpace(text), true
		}
	}
	n.wrong(want)
	return "", false
}

// Int is a whole number within bounds. Absent is 0.
func (n *Node) Int(least, most int64) int64 {
	const want = "a whole number"
	text, ok := n.number(want)
	if !ok {
		return 0
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		n.Rejectf("want %s", want)
		return 0
	}
	if number < least || number > most {
		n.Rejectf("use %d to %d", least, most)
		return 0
	}
	return number
}

// Float is a number above 0 and at most that. Absent is 0.
func (n *Node) Float(most float64) float64 {
	text, ok := n.number("a number")
	if !ok {
		return 0
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || !(number > 0 && number <= most) { // NaN is neither
		n.Rejectf("use a number above 0 and at most %g", most)
		return 0
	}
	return number
}

// Bool is true or false. Absent is false.
func (n *Node) Bool() bool {
	if n == nil {
		return false
	}
	switch v := n.value.(type) {
	case *ast.BoolNode:
		return v.Value
	case *ast.StringNode:
		if text, had := n.expand(); had {
			switch text {
			case "true":
				return true
			case "false":
				return false
			}
		}
	}
	n.wrong("true or false")
	return false
}

// Duration is a time as Go writes it. Absent is 0.
func (n *Node) Duration(least, most time.Duration) time.Duration {
	if n == nil {
		return 0
	}
	if n.kind() == "a number" {
		n.Failf("want a duration with its unit, such as 90s or 10m")
		return 0
	}
	text := n.Text()
	if n.doc.err != nil {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		n.Rejectf("want a duration such as 90s, 10m or 1h30m")
		return 0
	}
	if d < least || d > most {
		n.Rejectf("use %s to %s", least, most)
		return 0
	}
	return d
}

// OneOf is a string out of a few.
func (n *Node) OneOf(choices ...string) string {
	text := n.Text()
	if n != nil && n.doc.err == nil && !slices.Contains(choices, text) {
		n.Rejectf("use %s", orList(choices))
	}
	return text
}

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

func orList(choices []string) string {
	if len(choices) == 1 {
		return choices[0]
	}
	return strings.Join(choices[:len(choices)-1], ", ") + " or " + choices[len(choices)-1]
}

// IsMap reports whether there is a map.
func (n *Node) IsMap() bool { return n.Present() && n.kind() == "a map" }

// IsList reports whether there is a list.
func (n *Node) IsList() bool { return n.Present() && n.kind() == "a list" }

// IsText reports whether there is a string.
func (n *Node) IsText() bool { return n.Present() && n.kind() == "a string" }
