package berth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/berth-run/berth/internal/nearest"
)

// Type is the type of an input, an output or a property: one of the built-in
// types or a class, and how many times it is an array of that.
type Type struct {
	Base       string // boolean, integer, real, string, File, Directory, or the name of a class
	Dimensions int    // 0: not an array
}

// The built-in types. The value of a File or Directory is its path, a string.
const (
	TypeBoolean   = "boolean"
	TypeInteger   = "integer" // 64 bits, signed
	TypeReal      = "real"    // 64 bits, finite
	TypeString    = "string"
	TypeFile      = "File"
	TypeDirectory = "Directory"
)

var builtinTypes = []string{TypeBoolean, TypeInteger, TypeReal, TypeString, TypeFile, TypeDirectory}

// typeAliases are other spellings that Brane takes.
var typeAliases = map[string]string{"bool": TypeBoolean, "int": TypeInteger, "float": TypeReal}

// maxDimensions bounds how deep a value can be; more is a mistake.
const maxDimensions = 8

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// ParseType reads a type as container.yml has it: "integer", "Point[]".
// Whether a class of that name exists is for [Type.Check].
func ParseType(text string) (Type, error) {
	t := Type{Base: text}
	for strings.HasSuffix(t.Base, "[]") {
		t.Base = strings.TrimSuffix(t.Base, "[]")
		t.Dimensions++
	}
	for strings.HasPrefix(t.Base, "[") && strings.HasSuffix(t.Base, "]") { // as Brane 2 has it
		t.Base = t.Base[1 : len(t.Base)-1]
		t.Dimensions++
	}
	if alias, ok := typeAliases[t.Base]; ok {
		t.Base = alias
	}
	if !identifier.MatchString(t.Base) {
		return Type{}, fmt.Errorf("type %s: write one of %s or the name of a class, with [] after it for an array", show(text), strings.Join(builtinTypes, ", "))
	}
	if t.Dimensions > maxDimensions {
		return Type{}, fmt.Errorf("type %s: at most %d dimensions are possible", show(text), maxDimensions)
	}
	return t, nil
}

func (t Type) String() string { return t.Base + strings.Repeat("[]", t.Dimensions) }

// Element is the type of an array's elements.
func (t Type) Element() Type { return Type{Base: t.Base, Dimensions: t.Dimensions - 1} }

// Builtin reports whether the base is no class.
func (t Type) Builtin() bool { return slices.Contains(builtinTypes, t.Base) }

// Check reports that the type is neither built in nor one of the classes.
func (t Type) Check(classes map[string]Class) error {
	if _, ok := classes[t.Base]; ok || t.Builtin() {
		return nil
	}
	switch t.Base {
	case "Data", "IntermediateResult":
		return fmt.Errorf("type %s: data sets of a Brane instance are not known here; use File or Directory and pass a path", t.Base)
	}
	known := append(slices.Clone(builtinTypes), slices.Sorted(maps.Keys(classes))...)
	if near := nearest.Word(t.Base, known); near != "" {
		return fmt.Errorf("type %s: there is no such type or class; did you mean %s?", t.Base, near)
	}
	return fmt.Errorf("type %s: there is no such type, and types: declares no class of that name; there are %s", t.Base, strings.Join(known, ", "))
}

// CheckClasses reports the first class that is of no use: with an unusable
// name, a property of no known type, a property twice, or itself inside of it.
func CheckClasses(classes map[string]Class) error {
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		if err := checkClass(name, classes); err != nil {
			return fmt.Errorf("class %s: %w", show(name), err)
		}
	}
	return checkCycles(classes)
}

func checkClass(name string, classes map[string]Class) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("use at most 63 letters, digits and '_', not beginning with a digit")
	}
	if _, alias := typeAliases[name]; alias || (Type{Base: name}).Builtin() {
		return fmt.Errorf("that is a built-in type; choose another name")
	}
	seen := map[string]bool{}
	for _, p := range classes[name].Properties {
		if err := checkParameter(p, classes); err != nil {
			return fmt.Errorf("property %s: %w", show(p.Name), err)
		}
		if p.Secret {
			return fmt.Errorf("property %s: secret is for inputs; declare an input of its own for it", show(p.Name))
		}
		if upper := strings.ToUpper(p.Name); seen[upper] {
			return fmt.Errorf("property %s is there twice (case doesn't count)", show(p.Name))
		} else {
			seen[upper] = true
		}
	}
	return nil
}

// checkCycles follows properties: a class inside itself has no finite value.
func checkCycles(classes map[string]Class) error {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name string, path []string) error
	visit = func(name string, path []string) error {
		path = append(path, name)
		switch state[name] {
		case done:
			return nil
		case visiting:
			return fmt.Errorf("class %s contains itself: %s", name, strings.Join(path[slices.Index(path, name):], " -> "))
		}
		state[name] = visiting
		for _, p := range classes[name].Properties {
			if t, err := ParseType(p.Type); err == nil && !t.Builtin() {
				if err := visit(t.Base, path); err != nil {
					return err
				}
			}
		}
		state[name] = done
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		if err := visit(name, nil); err != nil {
			return err
		}
	}
	return nil
}
