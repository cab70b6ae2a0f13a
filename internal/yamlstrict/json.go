package yamlstrict

import (
	"bytes"
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth  = 100 // of what becomes JSON
	maxGrowth = 10  // how much larger than the file its JSON may be, which aliases make possible
)

// JSON is any value as JSON: keys are strings, numbers keep all their digits.
// Plain scalars are what YAML 1.2 (core schema) takes them for: yes is text,
// 010 is ten. Absent is null.
func (n *Node) JSON() json.RawMessage {
	if n == nil {
		return json.RawMessage("null")
	}
	w := jsonWriter{budget: maxGrowth * (n.doc.size + 1000)}
	w.write(n, 0)
	if n.doc.err != nil {
		return nil
	}
	return w.out.Bytes()
}

type jsonWriter struct {
	out    bytes.Buffer
	budget int
}

func (w *jsonWriter) write(n *Node, depth int) {
	switch {
	case n.doc.err != nil:
		return
	case depth > maxDepth:
		n.Failf("nests deeper than %d", maxDepth)
		return
	case w.out.Len() > w.budget:
		n.Failf("the aliases before this multiply the text; write it out")
		return
	}
	switch v := n.value.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		w.out.WriteByte('{')
		for i, entry := range n.Entries() {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.text(entry.Key)
			w.out.WriteByte(':')
			w.write(entry.Node, depth+1)
		}
		w.out.WriteByte('}')
	case *ast.SequenceNode:
		w.out.WriteByte('[')
		for i, item := range n.Items() {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.write(item, depth+1)
		}
		w.out.WriteByte(']')
	case *ast.LiteralNode:
		w.text(n.written())
	case *ast.StringNode:
		if v.Token != nil && v.Token.Type != token.StringType { // quoted
			w.text(v.Value)
			return
		}
		w.plain(n, v.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		w.plain(n, n.written())
	case nil:
		w.out.WriteString("null")
	default:
		n.Failf("this can't be a value here")
	}
}

var (
	coreInteger = regexp.MustCompile(`^[-+]?[0-9]+$`)
	coreBased   = regexp.MustCompile(`^0(o[0-7]+|x[0-9a-fA-F]+)$`)
	coreReal    = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	coreSpecial = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

func (w *jsonWriter) plain(n *Node, text string) {
	switch text {
	case "", "~", "null", "Null", "NULL":
		w.out.WriteString("null")
		return
	case "true", "True", "TRUE":
		w.out.WriteString("true")
		return
	case "false", "False", "FALSE":
		w.out.WriteString("false")
		return
	}
	switch {
	case coreInteger.MatchString(text):
		w.integer(text)
	case coreBased.MatchString(text):
		number, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			n.Failf("the number is too large")
			return
		}
		w.out.WriteString(strconv.FormatUint(number, 10))
	case coreReal.MatchString(text):
		number, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(number, 0) {
			n.Failf("the number is too large")
			return
		}
		data, _ := json.Marshal(number)
		w.out.Write(data)
		if !bytes.ContainsAny(data, ".e") {
			w.out.WriteString(".0") // what is written as a real is one
		}
	case coreSpecial.MatchString(text):
		n.Failf("%s is no number that can be kept; infinity and NaN have no form in JSON", text)
	default:
		w.text(text)
	}
}

// integer writes any number of digits, without the zeros and the + that JSON doesn't know.
func (w *jsonWriter) integer(text string) {
	digits, negative := strings.CutPrefix(strings.TrimPrefix(text, "+"), "-")
	if digits = strings.TrimLeft(digits, "0"); digits == "" {
		digits, negative = "0", false
	}
	if negative {
		w.out.WriteByte('-')
	}
	w.out.WriteString(digits)
}

func (w *jsonWriter) text(text string) {
	encoder := json.NewEncoder(&w.out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text)        // a string in memory: it can't fail
	w.out.Truncate(w.out.Len() - 1) // the line end that Encode adds
}
