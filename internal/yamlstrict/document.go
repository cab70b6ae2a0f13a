// Package yamlstrict reads YAML files that people write by hand: each mistake
// is an error with file, line and column that names the field and says what
// would be right. Text comes in; the caller walks over nodes and asks each for
// what it must be. It knows no file's fields; packages config and taskfile do.
//
// The first mistake stays: after it every question is answered with a zero
// value, so the caller asks for everything and looks at [Document.Err] once.
package yamlstrict

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/berth-run/berth"
)

// maxBytes is more than people write, and enough for a thousand infrastructures
// with a kubeconfig each; it bounds what a mistaken path costs.
const maxBytes = 8 << 20

// Document is one YAML file.
type Document struct {
	// Expand, when set, replaces references in strings. It says whether there
	// were any: what comes of them may be secret and is never shown.
	Expand func(text string) (expanded string, had bool, err error)

	name    string
	size    int
	root    ast.Node
	anchors map[string]ast.Node
	err     error
}

// Parse reads a file's text; name is how errors call the file. Syntax errors
// are CodeInvalid, as are all errors of a Document.
func Parse(name string, data []byte) (*Document, error) {
	if len(data) > maxBytes {
		return nil, (&Document{name: name}).errorAt(1, 1, "the file is larger than 8 MiB; is this the right one?")
	}
	return ParseOutput(name, data)
}

// ParseOutput is Parse for what a program wrote, which may be of any size.
func ParseOutput(name string, data []byte) (*Document, error) {
	d := &Document{name: name, size: len(data), anchors: map[string]ast.Node{}}
	if deep(data) {
		return nil, d.errorAt(1, 1, "it nests deeper than anything that is a value")
	}
	// Duplicate keys are found here, with a message that names the field.
	file, err := parse([]byte(strings.TrimPrefix(string(data), "\ufeff")))
	if err != nil {
		return nil, d.syntaxError(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if d.root != nil {
			line, column := position(doc.Body)
			return nil, d.errorAt(line, column, "a second YAML document begins here (---); write one")
		}
		d.root = doc.Body
	}
	if d.root != nil {
		ast.Walk(anchorCollector(d.anchors), d.root)
	}
	return d, nil
}

// parse guards against the parser: a panic over odd input must not end a
// program that reloads its configuration.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, errors.New("it is not valid YAML")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// The parser quotes the source below its message, and the source may hold
// secrets: the message alone is kept, without what it quotes itself.
var quoted = regexp.MustCompile("\"[^\"]*\"|'[^']*'|`[^`]*`")

func (d *Document) syntaxError(err error) error {
	line, column, message := 1, 1, "it is not valid YAML"
	if syntax := yaml.Error(nil); errors.As(err, &syntax) {
		if tk := syntax.GetToken(); tk != nil && tk.Position != nil {
			line, column = max(tk.Position.Line, 1), max(tk.Position.Column, 1)
		}
		message = quoted.ReplaceAllStringFunc(firstLine(syntax.GetMessage()), func(text string) string {
			if len(text) == 3 && strings.ContainsRune("[]{},:", rune(text[1])) {
				return text // the parser's own: what is missing
			}
			return "..."
		})
	}
	return d.errorAt(line, column, "this is not valid YAML: %s", message)
}

// deep reports that brackets or dashes nest so deep that the parser, whose time
// grows with the square of it, would be at it for minutes. It looks at bytes
// alone, those inside of strings too.
func deep(data []byte) bool {
	const most = 2000
	depth, dashes := 0, 0
	for _, b := range data {
		switch b {
		case '[', '{':
			if depth++; depth > most {
				return true
			}
		case ']', '}':
			depth = max(depth-1, 0)
		}
		switch b {
		case '-', '?', ':', '&', '!', '*':
			if dashes++; dashes > most {
				return true
			}
		case ' ', '\t':
		default:
			dashes = 0
		}
	}
	return false
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

type anchorCollector map[string]ast.Node

func (c anchorCollector) Visit(node ast.Node) ast.Visitor {
	if anchor, ok := node.(*ast.AnchorNode); ok && anchor.Name != nil {
		c[anchor.Name.GetToken().Value] = anchor.Value
	}
	return c
}

// Root is the whole document. It is not present when the file is empty.
func (d *Document) Root() *Node {
	n := &Node{doc: d, line: 1, column: 1, keyLine: 1, keyColumn: 1}
	if d.root != nil {
		n.set(d.root)
	}
	return n
}

// Err returns the first mistake that was found, or nil.
func (d *Document) Err() error { return d.err }

func (d *Document) errorAt(line, column int, format string, args ...any) error {
	return berth.Errorf(berth.CodeInvalid, "%s:%d:%d: %w", d.name, line, column, fmt.Errorf(format, args...))
}

func (d *Document) fail(line, column int, path, format string, args ...any) {
	if d.err != nil {
		return
	}
	message := fmt.Sprintf(format, args...)
	if path != "" {
		message = path + ": " + message
	}
	d.err = d.errorAt(line, column, "%s", message)
}

// position is where a person would look for a node.
func position(node ast.Node) (line, column int) {
	if m, ok := node.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		node = m.Values[0].Key
	}
	if m, ok := node.(*ast.MappingValueNode); ok {
		node = m.Key
	}
	tk := node.GetToken()
	if tk == nil || tk.Position == nil {
		return 1, 1
	}
	return max(tk.Position.Line, 1), max(tk.Position.Column, 1)
}
