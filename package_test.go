package berth

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sample has an input of each sort.
var sample = &Package{
	Name: "geometry", Version: "1.0.0", Kind: "ecu", WorkDir: "/opt/wd", Entrypoint: Entrypoint{Kind: "task", Exec: "run.py"},
	Types: map[string]Class{
		"Point": {Properties: []Parameter{{Name: "x", Type: "real"}, {Name: "y", Type: "real", Default: json.RawMessage("0")}, {Name: "label", Type: "string", Optional: true}}},
		"Shape": {Properties: []Parameter{{Name: "points", Type: "Point[]"}, {Name: "closed", Type: "boolean"}}},
	},
	Functions: []Function{
		{Name: "area", Capture: CaptureComplete,
			Inputs:  []Parameter{{Name: "shape", Type: "Shape"}, {Name: "scale", Type: "real", Default: json.RawMessage("1")}, {Name: "unit", Type: "string", Optional: true}},
			Outputs: []Parameter{{Name: "area", Type: "real"}}},
		{Name: "each", Capture: CaptureComplete,
			Inputs:  []Parameter{{Name: "points", Type: "Point[]"}, {Name: "n", Type: "integer"}, {Name: "on", Type: "boolean"}, {Name: "file", Type: "File"}},
			Outputs: []Parameter{{Name: "names", Type: "string[]"}, {Name: "nearest", Type: "Point"}, {Name: "note", Type: "string", Optional: true}}},
		{Name: "login", Capture: CaptureComplete, Inputs: []Parameter{{Name: "password", Type: "string", Secret: true}, {Name: "token", Type: "string", Secret: true, Default: json.RawMessage(`"${secret:TOKEN}"`)}},
			Outputs: []Parameter{}},
		{Name: "text", Capture: CaptureComplete, Inputs: []Parameter{{Name: "text", Type: "string"}}, Outputs: []Parameter{{Name: "text", Type: "string"}}},
	},
}

func TestTheSampleIsValid(t *testing.T) {
	if err := sample.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestTypes(t *testing.T) {
	for text, want := range map[string]string{"integer": "integer", "Point[][]": "Point[][]", "[string]": "string[]", "bool": "boolean", "int[]": "integer[]", "float": "real", "File": "File"} {
		if got, err := ParseType(text); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "[]", "a b", "integer[", "integer[3]", "x" + strings.Repeat("[]", 9), "1st"} {
		if got, err := ParseType(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	unknown, _ := ParseType("Piont[]")
	if err := unknown.Check(sample.Types); err == nil || !strings.Contains(err.Error(), "did you mean Point?") {
		t.Errorf("got %v", err)
	}
}

func TestClassesThatAreOfNoUse(t *testing.T) {
	property := func(name, typ string) Class { return Class{Properties: []Parameter{{Name: name, Type: typ}}} }
	for name, tt := range map[string]struct {
		classes map[string]Class
		want    string
	}{
		"itself":         {map[string]Class{"A": property("a", "A[]")}, "class A contains itself: A -> A"},
		"a circle":       {map[string]Class{"A": property("b", "B"), "B": property("c", "C"), "C": property("a", "A")}, "class A contains itself: A -> B -> C -> A"},
		"unknown":        {map[string]Class{"A": property("b", "B")}, `class "A": property "b": type B: there is no such type`},
		"built in":       {map[string]Class{"File": {}}, `class "File": that is a built-in type`},
		"a bad name":     {map[string]Class{"A B": {}}, `class "A B": use at most`},
		"twice":          {map[string]Class{"A": {Properties: []Parameter{{Name: "x", Type: "real"}, {Name: "X", Type: "real"}}}}, `property "X" is there twice`},
		"secret":         {map[string]Class{"A": {Properties: []Parameter{{Name: "x", Type: "string", Secret: true}}}}, "secret is for inputs"},
		"a default":      {map[string]Class{"A": {Properties: []Parameter{{Name: "x", Type: "integer", Default: json.RawMessage("1.5")}}}}, `default "x": want an integer, have 1.5`},
		"cyclic default": {map[string]Class{"A": {Properties: []Parameter{{Name: "x", Type: "A", Default: json.RawMessage("{}")}}}}, "class A contains itself"},
	} {
		if err := CheckClasses(tt.classes); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

func TestValues(t *testing.T) {
	for _, tt := range []struct{ typ, value, want, problem string }{
		{"integer", " 42 ", "42", ""},
		{"integer", "-0", "0", ""},
		{"integer", "9223372036854775807", "9223372036854775807", ""},
		{"integer", "9223372036854775808", "", `"v": want an integer of 64 bits, have 9223372036854775808`},
		{"integer", "3.0", "", `"v": want an integer, have 3.0`},
		{"integer", `"3"`, "", `"v": want an integer, have "3"`},
		{"real", "3", "3", ""},
		{"real", "2.50", "2.5", ""},
		{"real", "1e400", "", `"v": want a real of 64 bits, have 1e400`},
		{"real", `"abc"`, "", `"v": want a real, have "abc"`},
		{"real", "null", "", `"v": want a real, have null`},
		{"boolean", "true", "true", ""},
		{"boolean", "1", "", `"v": want true or false, have 1`},
		{"string", `"<b> \u00e9"`, `"<b> é"`, ""},
		{"string", "5", "", `"v": want a string, have 5`},
		{"string", `"a\u0000b"`, "", `"v": has a NUL character`},
		{"File", `"/data/x"`, `"/data/x"`, ""},
		{"File", `{"url": "/data/x"}`, `"/data/x"`, ""},
		{"File", `""`, "", `"v": want the path of a File, but it is empty`},
		{"File", `{"uri": "x"}`, "", `"v": want the path of a File, have {"uri":"x"}`},
		{"integer[]", "[]", "[]", ""},
		{"integer[][]", "[[1], [2, 3]]", "[[1],[2,3]]", ""},
		{"integer[]", `[1, "b"]`, "", `"v[1]": want an integer, have "b"`},
		{"integer[]", "1", "", `"v": want an array (integer[]), have 1`},
		{"Point", `{"y": 1, "x": 2}`, `{"x":2,"y":1}`, ""},
		{"Point", `{"x": 2, "label": null}`, `{"x":2,"y":0}`, ""},
		{"Point", `{"y": 2}`, "", `"v": the property "x" (real) of Point is missing`},
		{"Point", `{"x": 2, "z": 3}`, "", `"v": "z" is no property of Point; did you mean x?`},
		{"Point", `{"x": 2, "x": 3}`, "", `"v": has "x" twice`},
		{"Point", `[]`, "", `"v": want an object (Point), have []`},
		{"Shape", `{"closed": true, "points": [{"x": 1}, {"x": "abc"}]}`, "", `"v.points[1].x": want a real, have "abc"`},
		{"real", "{", "", `"v": want a real, but this is not valid JSON`},
		{"real", "", "", `"v": want a real, but this is not valid JSON`},
	} {
		typ, err := ParseType(tt.typ)
		if err != nil {
			t.Fatal(err)
		}
		got, err := CheckValue("v", typ, sample.Types, json.RawMessage(tt.value))
		switch {
		case tt.problem == "" && (err != nil || string(got) != tt.want):
			t.Errorf("%s %s: %s, %v; want %s", tt.typ, tt.value, got, err, tt.want)
		case tt.problem != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.problem)):
			t.Errorf("%s %s: %v, want %s", tt.typ, tt.value, err, tt.problem)
		}
	}
}

// drawType draws a type and a value of it, not in canonical form.
func drawValue(t *rapid.T, typ Type) any {
	if typ.Dimensions > 0 {
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			list = append(list, drawValue(t, typ.Element()))
		}
		return list
	}
	switch typ.Base {
	case TypeBoolean:
		return rapid.Bool().Draw(t, "boolean")
	case TypeInteger:
		return rapid.Int64().Draw(t, "integer")
	case TypeReal:
		return rapid.Float64().Draw(t, "real")
	case TypeString:
		return strings.ReplaceAll(rapid.String().Draw(t, "string"), "\x00", "")
	case TypeFile, TypeDirectory:
		return "/" + rapid.StringMatching(`[a-z/.]*`).Draw(t, "path")
	}
	object := map[string]any{}
	for _, p := range sample.Types[typ.Base].Properties {
		inner, _ := ParseType(p.Type)
		if p.Optional && rapid.Bool().Draw(t, "null") {
			object[p.Name] = nil
		} else if !p.Optional && p.Default == nil || rapid.Bool().Draw(t, "given") {
			object[p.Name] = drawValue(t, inner)
		}
	}
	return object
}

func TestCanonicalValuesAreFixedPoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := Type{
			Base:       rapid.SampledFrom([]string{TypeBoolean, TypeInteger, TypeReal, TypeString, TypeFile, TypeDirectory, "Point", "Shape"}).Draw(t, "base"),
			Dimensions: rapid.IntRange(0, 2).Draw(t, "dimensions"),
		}
		value, err := json.MarshalIndent(drawValue(t, typ), "", "  ")
		if err != nil {
			t.Skip("not JSON")
		}
		once, err := CheckValue("v", typ, sample.Types, value)
		if err != nil {
			t.Fatalf("%s of type %s: %v", value, typ, err)
		}
		again, err := CheckValue("v", typ, sample.Types, once)
		if err != nil || string(again) != string(once) {
			t.Fatalf("%s became %s, %v", once, again, err)
		}
	})
}

func FuzzCheckValue(f *testing.F) {
	for _, seed := range []string{`{"points":[{"x":1,"label":null}],"closed":true}`, `[1,2.5,"a"]`, `null`, `{"url":"x"}`, `{"x":1e999}`} {
		f.Add("Shape", seed)
		f.Add("Point[]", seed)
		f.Add("File", seed)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		typ, err := ParseType(name)
		if err != nil || typ.Check(sample.Types) != nil {
			return
		}
		got, err := CheckValue("v", typ, sample.Types, json.RawMessage(value))
		if err != nil {
			var wrong *ValueError
			if !errors.As(err, &wrong) || wrong.Path == "" || wrong.Problem == "" {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		again, err := CheckValue("v", typ, sample.Types, got)
		if err != nil || string(again) != string(got) {
			t.Errorf("%s of %s became %s, then %s (%v)", value, name, got, again, err)
		}
	})
}
