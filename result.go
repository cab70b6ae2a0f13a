package berth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxResult bounds the encoded result of a function, in bytes.
const MaxResult = 1 << 20

// ResultError says what is wrong with what a program gave as its result.
type ResultError struct {
	Cause   Cause  // CauseResultMissing or CauseResultMalformed
	Summary string // one sentence that names the output
}

func (e *ResultError) Error() string { return e.Summary }

func missing(format string, args ...any) *ResultError {
	return &ResultError{Cause: CauseResultMissing, Summary: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) *ResultError {
	return &ResultError{Cause: CauseResultMalformed, Summary: fmt.Sprintf(format, args...)}
}

// Result checks what a program gave, a mapping of its outputs by name, against
// those that the function declares, and returns the function's value in
// canonical form: that of its only output, an object where there are several,
// null where there is none. Names that aren't declared are left out, as Brane
// does it. Empty output is a mapping of nothing.
func (p *Package) Result(function string, output json.RawMessage) (json.RawMessage, *ResultError) {
	fn := p.Function(function)
	if fn == nil {
		return nil, malformed("package %s has no function %s.", p.Name, show(function))
	}
	if len(fn.Outputs) == 0 {
		return json.RawMessage("null"), nil
	}
	output = bytes.TrimSpace(output)
	if len(output) == 0 || isNull(output) {
		return nil, missing("The program gave no output, but %s declares %s: it has to print a line such as %s: VALUE.", fn.Name, signature(fn.Outputs), fn.Outputs[0].Name)
	}
	if !json.Valid(output) {
		return nil, malformed("The output of %s is not valid JSON.", fn.Name)
	}
	if output[0] != '{' {
		return nil, malformed("The output of %s is %s, not a mapping of names to values: it has to be %s: VALUE.", fn.Name, shorten(compact(output)), fn.Outputs[0].Name)
	}
	members, err := readObject("output", output)
	if err != nil {
		return nil, malformed("The output of %s: %v.", fn.Name, err)
	}
	given := map[string]json.RawMessage{}
	var names []string
	for _, m := range members {
		given[m.key] = m.value
		names = append(names, m.key)
	}
	values, failure := p.outputs(fn, given, names)
	if failure != nil {
		return nil, failure
	}
	value := values
	if len(fn.Outputs) == 1 {
		value = json.RawMessage("null") // an optional one that wasn't given
		if m, _ := readObject("output", values); len(m) == 1 {
			value = m[0].value
		}
	}
	if len(value) > MaxResult {
		return nil, malformed("The output of %s takes %d bytes; at most %d MiB are possible: write large data to files.", fn.Name, len(value), MaxResult>>20)
	}
	return value, nil
}

func (p *Package) outputs(fn *Function, given map[string]json.RawMessage, names []string) (json.RawMessage, *ResultError) {
	var out bytes.Buffer
	out.WriteByte('{')
	for _, declared := range fn.Outputs {
		value, ok := given[declared.Name]
		if declared.Optional && (!ok || isNull(value)) {
			continue
		}
		if !ok {
			return nil, missing("The output %s (%s) of %s is missing; the program gave %s.", show(declared.Name), declared.Type, fn.Name, listed(names))
		}
		if isNull(value) {
			return nil, missing("The output %s (%s) of %s has no value.", show(declared.Name), declared.Type, fn.Name)
		}
		t, err := ParseType(declared.Type)
		if err != nil {
			return nil, malformed("The output %s of %s: %v.", show(declared.Name), fn.Name, err)
		}
		checked, err := CheckValue(declared.Name, t, p.Types, value)
		if err != nil {
			var wrong *ValueError
			if errors.As(err, &wrong) && t.Base == TypeString && t.Dimensions == 0 {
				return nil, malformed("The output %s of %s is not of its type: %s; in YAML, text that looks like something else needs quotes.", show(wrong.Path), fn.Name, wrong.Problem)
			}
			return nil, malformed("The output %s of %s is not of its type: %s.", show(pathOf(err, declared.Name)), fn.Name, problemOf(err))
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		writeString(&out, declared.Name)
		out.WriteByte(':')
		out.Write(checked)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

func pathOf(err error, name string) string {
	var wrong *ValueError
	if errors.As(err, &wrong) {
		return wrong.Path
	}
	return name
}

func problemOf(err error) string {
	var wrong *ValueError
	if errors.As(err, &wrong) {
		return wrong.Problem
	}
	return err.Error()
}

// listed names what was given, a few of them.
func listed(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	const most = 5
	var shown []string
	for i, name := range names {
		if i == most {
			return strings.Join(shown, ", ") + " and more"
		}
		shown = append(shown, show(name))
	}
	return strings.Join(shown, ", ")
}
