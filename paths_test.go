package berth

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// Paths are found wherever a type has them, and nothing else is touched.
func TestMapPathsFindsEveryPath(t *testing.T) {
	classes := map[string]Class{
		"Point":  {Properties: []Parameter{{Name: "x", Type: "integer"}}},
		"Sample": {Properties: []Parameter{{Name: "name", Type: "string"}, {Name: "source", Type: "File"}, {Name: "at", Type: "Point", Optional: true}}},
	}
	var seen []string
	upper := func(where string, typ Type, path string) (string, error) {
		seen = append(seen, where+":"+typ.Base)
		return strings.ToUpper(path), nil
	}
	for _, tt := range []struct{ typ, value, want, seen string }{
		{"File", `"a/<b>"`, `"A/<B>"`, "in:File"},
		{"Directory[]", `["a","b"]`, `["A","B"]`, "in[0]:Directory in[1]:Directory"},
		{"string", `"a"`, `"a"`, ""},
		{"Point[]", `[{"x":1}]`, `[{"x":1}]`, ""},
		{"Sample[][]", `[[{"name":"n","source":"s","at":{"x":1}}],[]]`, `[[{"name":"n","source":"S","at":{"x":1}}],[]]`, "in[0][0].source:File"},
		{"File", `null`, `null`, ""},
	} {
		typ, err := ParseType(tt.typ)
		if err != nil {
			t.Fatal(err)
		}
		seen = nil
		got, err := MapPaths("in", typ, classes, json.RawMessage(tt.value), upper)
		if err != nil || string(got) != tt.want || strings.Join(seen, " ") != tt.seen {
			t.Errorf("%s %s: %s, %v, saw %v", tt.typ, tt.value, got, err, seen)
		}
	}
	broken := errors.New("broken")
	if _, err := MapPaths("in", Type{Base: TypeFile, Dimensions: 1}, nil, json.RawMessage(`["a"]`), func(string, Type, string) (string, error) { return "", broken }); !errors.Is(err, broken) {
		t.Errorf("an error of the function: %v", err)
	}
}
