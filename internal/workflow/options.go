package workflow

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"go.starlark.net/resolve"
	"go.starlark.net/syntax"

	"github.com/berth-run/berth"
)

// option is what every call takes beside its function's own arguments.
type option struct {
	name string
	want string
	fits func(value json.RawMessage) bool
	maps bool // of .map alone
}

var callOptions = []option{
	{name: "on", want: "the name of an infrastructure, or KEY=VALUE of a label, as text", fits: isText},
	{name: "cpu", want: "CPUs, such as 2 or \"500m\"", fits: func(v json.RawMessage) bool { _, err := quantity(v).MilliCPU(); return err == nil }},
	{name: "memory", want: "memory, such as \"512Mi\"", fits: func(v json.RawMessage) bool {
		_, err := quantity(v).Bytes()
		return isText(v) && err == nil
	}},
	{name: "timeout", want: "a duration of a second or more, such as \"10m\"", fits: func(v json.RawMessage) bool {
		d, err := time.ParseDuration(text(v))
		return err == nil && d >= time.Second
	}},
	{name: "retries", want: "how many times to try again, 0 to 1000", fits: func(v json.RawMessage) bool { return whole(v, 0, 1000) }},
	{name: "cache", want: "True or False", fits: func(v json.RawMessage) bool { return string(v) == "true" || string(v) == "false" }},
	{name: "name", want: "a text", fits: isText},
	{name: "max_parallel", want: "how many calls run at once, such as 8", fits: func(v json.RawMessage) bool { return whole(v, 1, math.MaxInt32) }, maps: true},
}

// optionNames are the names of the options of a kind of call.
func optionNames(how string) []string {
	var names []string
	for i := range callOptions {
		if !callOptions[i].maps || how == asMap {
			names = append(names, callOptions[i].name)
		}
	}
	return names
}

// optionOf is the option that an argument of a call is. An input of the function
// goes before an option of the same name, which is written with an underscore
// before it then: _name. A nil function has no inputs.
func optionOf(fn *berth.Function, name, how string) (*option, bool) {
	has := func(name string) bool { return fn != nil && fn.Input(name) != nil }
	if bare, ok := strings.CutPrefix(name, "_"); ok && has(bare) && !has(name) {
		name = bare
	} else if has(name) {
		return nil, false
	}
	i := slices.IndexFunc(callOptions, func(o option) bool { return o.name == name && (!o.maps || how == asMap) })
	if i < 0 {
		return nil, false
	}
	return &callOptions[i], true
}

// checkOption checks the written value of an option. None is as if it weren't there.
func (c *checker) checkOption(o *option, value syntax.Expr) {
	v, ok := written(value)
	if !ok || string(v) == "null" || o.fits(v) {
		return
	}
	c.problem(start(value), "%s is %s, have %s", o.name, o.want, c.program.source(value))
}

func isText(v json.RawMessage) bool { return v[0] == '"' }

// text is what a JSON string says, empty for anything else.
func text(v json.RawMessage) (s string) {
	_ = json.Unmarshal(v, &s)
	return s
}

// quantity is a text or a number as a quantity.
func quantity(v json.RawMessage) berth.Quantity {
	if isText(v) {
		return berth.Quantity(text(v))
	}
	return berth.Quantity(v)
}

func whole(v json.RawMessage, least, most int64) bool {
	var n int64
	return json.Unmarshal(v, &n) == nil && n >= least && n <= most
}

// written is the JSON form of a value that stands in the program as it is; not
// ok for what only a run can tell.
func written(e syntax.Expr) (json.RawMessage, bool) {
	var out bytes.Buffer
	if !write(&out, e) {
		return nil, false
	}
	return out.Bytes(), true
}

func write(out *bytes.Buffer, e syntax.Expr) bool {
	switch e := unparen(e).(type) {
	case *syntax.Literal:
		return writeLiteral(out, e)
	case *syntax.Ident:
		binding, ok := e.Binding.(*resolve.Binding)
		word := map[string]string{"True": "true", "False": "false", "None": "null"}[e.Name]
		out.WriteString(word)
		return ok && binding.Scope == resolve.Universal && word != ""
	case *syntax.UnaryExpr:
		literal, ok := unparenOr(e.X).(*syntax.Literal)
		if !ok || e.Op != syntax.MINUS || literal.Token != syntax.INT && literal.Token != syntax.FLOAT {
			return false
		}
		out.WriteByte('-')
		return writeLiteral(out, literal)
	case *syntax.ListExpr:
		return writeList(out, e.List)
	case *syntax.TupleExpr:
		return writeList(out, e.List)
	case *syntax.DictExpr:
		out.WriteByte('{')
		for i, entry := range e.List {
			entry := entry.(*syntax.DictEntry)
			key, ok := unparen(entry.Key).(*syntax.Literal)
			if !ok || key.Token != syntax.STRING {
				return false
			}
			if i > 0 {
				out.WriteByte(',')
			}
			if !writeLiteral(out, key) {
				return false
			}
			out.WriteByte(':')
			if !write(out, entry.Value) {
				return false
			}
		}
		out.WriteByte('}')
		return true
	}
	return false
}

// unparenOr is unparen for an operand that may be missing.
func unparenOr(e syntax.Expr) syntax.Expr {
	if e == nil {
		return nil
	}
	return unparen(e)
}

func writeList(out *bytes.Buffer, list []syntax.Expr) bool {
	out.WriteByte('[')
	for i, e := range list {
		if i > 0 {
			out.WriteByte(',')
		}
		if !write(out, e) {
			return false
		}
	}
	out.WriteByte(']')
	return true
}

func writeLiteral(out *bytes.Buffer, literal *syntax.Literal) bool {
	switch v := literal.Value.(type) {
	case *big.Int:
		out.WriteString(v.String())
		return true
	case string:
		if literal.Token == syntax.BYTES {
			return false
		}
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		err := encoder.Encode(v)
		out.Truncate(out.Len() - 1)
		return err == nil
	}
	value, err := json.Marshal(literal.Value)
	out.Write(value)
	return err == nil
}

// listOf is the elements of a written list; nil for anything else.
func listOf(e syntax.Expr) []syntax.Expr {
	switch e := unparen(e).(type) {
	case *syntax.ListExpr:
		return e.List
	case *syntax.TupleExpr:
		return e.List
	}
	return nil
}
