package yamlstrict

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

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

// Referenced reports whether a string has a reference in it, and so may hold
// what is not written in the file.
func (n *Node) Referenced() bool {
	_, had := n.expand()
	return had
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

func orList(choices []string) string {
	if len(choices) == 1 {
		return choices[0]
	}
	return strings.Join(choices[:len(choices)-1], ", ") + " or " + choices[len(choices)-1]
}
