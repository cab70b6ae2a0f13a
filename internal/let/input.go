// Package let is what the agent (berthlet) does inside a container around a
// program: it hands arguments over, takes the result out of the output and
// makes a value of it. Arguments and bytes come in, variables, log lines and
// JSON go out. It talks to nobody.
package let

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
)

// maxVariables bounds what the elements of one argument take as variables, in
// bytes with what Linux adds to each: a program is started with at most 2 MiB.
const maxVariables = 256 << 10

// maxVariable is what Linux takes of one variable, its end included.
const maxVariable = 128 << 10

// maxEnviron bounds all of them together.
const maxEnviron = 1 << 20

// Environ gives the variables by which a program gets its arguments, as Brane
// names them: the input's name in capitals; for an array its length, and its
// elements as NAME_0, NAME_1 ...; for a class its properties as NAME_PROPERTY;
// for a File or Directory its path, also as NAME_URL. Arguments are as
// [berth.Package.Arguments] checked them, with the values of secrets in place.
// An argument whose elements would take more than 256 KiB isn't spread out: of
// an array there is the length, and the rest is in the file of InputJSON.
func Environ(fn *berth.Function, types map[string]berth.Class, args map[string]json.RawMessage) ([]string, error) {
	e := environ{types: types, taken: map[string]string{}}
	for _, in := range fn.Inputs {
		value, given := args[in.Name]
		if !given {
			continue
		}
		t, err := berth.ParseType(in.Type)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", in.Name, err)
		}
		if err := e.argument(in.Name, t, value); err != nil {
			return nil, err
		}
	}
	if e.size > maxEnviron {
		return nil, fmt.Errorf("the arguments take %d bytes as variables; at most %d are possible: put large data into files", e.size, maxEnviron)
	}
	return e.vars, nil
}

type environ struct {
	types map[string]berth.Class
	vars  []string
	taken map[string]string // variable → the input that it is of
	size  int
}

type pair struct{ name, value string }

func (e *environ) argument(input string, t berth.Type, value json.RawMessage) error {
	s := spread{types: e.types}
	if err := s.add(strings.ToUpper(input), t, value, 0); err != nil {
		return fmt.Errorf("input %s: %w", input, err)
	}
	pairs := s.pairs
	if s.size > maxVariables && (t.Dimensions > 0 || !t.Builtin()) {
		pairs = nil
		if t.Dimensions > 0 {
			pairs = s.pairs[:1] // the length comes first
		}
	}
	for _, p := range pairs {
		if other, ok := e.taken[p.name]; ok {
			return fmt.Errorf("the inputs %s and %s both become the variable %s; rename one", other, input, p.name)
		}
		if strings.ContainsRune(p.value, 0) {
			return fmt.Errorf("input %s has a NUL character, which no variable can hold", input)
		}
		if len(p.name)+len(p.value)+2 > maxVariable {
			return fmt.Errorf("input %s takes %d bytes; a variable holds at most %d KiB", input, len(p.value), maxVariable>>10)
		}
		e.taken[p.name] = input
		e.vars = append(e.vars, p.name+"="+p.value)
		e.size += p.size()
	}
	return nil
}

// size is what Linux counts: the text, its end, and a pointer to it.
func (p pair) size() int { return len(p.name) + len(p.value) + 2 + 8 }

// spread makes variables of one argument. It stops, once there are too many.
type spread struct {
	types map[string]berth.Class
	pairs []pair
	size  int
}

func (s *spread) set(name, value string) {
	p := pair{name, value}
	s.pairs = append(s.pairs, p)
	s.size += p.size()
}

func (s *spread) add(name string, t berth.Type, value json.RawMessage, depth int) error {
	if depth > 64 {
		return fmt.Errorf("nests too deep")
	}
	if s.size > maxVariables {
		return nil
	}
	if t.Dimensions > 0 {
		var elements []json.RawMessage
		if err := json.Unmarshal(value, &elements); err != nil {
			return fmt.Errorf("want an array: %w", err)
		}
		s.set(name, strconv.Itoa(len(elements)))
		for i, element := range elements {
			if err := s.add(name+"_"+strconv.Itoa(i), t.Element(), element, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if !t.Builtin() {
		return s.class(name, t, value, depth)
	}
	text, err := scalar(t, value)
	if err != nil {
		return err
	}
	s.set(name, text)
	if t.Base == berth.TypeFile || t.Base == berth.TypeDirectory {
		s.set(name+"_URL", text)
	}
	return nil
}

func (s *spread) class(name string, t berth.Type, value json.RawMessage, depth int) error {
	class, ok := s.types[t.Base]
	if !ok {
		return fmt.Errorf("the class %s is not declared", t.Base)
	}
	var properties map[string]json.RawMessage
	if err := json.Unmarshal(value, &properties); err != nil {
		return fmt.Errorf("want an object: %w", err)
	}
	for _, p := range class.Properties {
		value, given := properties[p.Name]
		if !given {
			continue
		}
		propertyType, err := berth.ParseType(p.Type)
		if err != nil {
			return err
		}
		if err := s.add(name+"_"+strings.ToUpper(p.Name), propertyType, value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// scalar writes a value as Brane does: strings bare, reals without exponent.
func scalar(t berth.Type, value json.RawMessage) (string, error) {
	switch t.Base {
	case berth.TypeString, berth.TypeFile, berth.TypeDirectory:
		var text string
		err := json.Unmarshal(value, &text)
		return text, err
	case berth.TypeReal:
		var number float64
		if err := json.Unmarshal(value, &number); err != nil {
			return "", err
		}
		return strconv.FormatFloat(number, 'f', -1, 64), nil
	}
	text := string(bytes.TrimSpace(value))
	if !json.Valid(value) || strings.ContainsAny(text, "\"[{") {
		return "", fmt.Errorf("want %s", t)
	}
	return text, nil
}

// InputJSON is the content of the file that $BERTH_INPUT names: an object of
// the arguments by name, the values of secrets included.
func InputJSON(args map[string]json.RawMessage) []byte {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(args)) {
		if i > 0 {
			out.WriteByte(',')
		}
		key, _ := json.Marshal(name)
		out.Write(key)
		out.WriteByte(':')
		if json.Compact(&out, args[name]) != nil {
			out.WriteString("null")
		}
	}
	out.WriteString("}\n")
	return out.Bytes()
}
