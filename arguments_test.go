package berth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func raw(pairs ...string) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = json.RawMessage(pairs[i+1])
	}
	return m
}

func TestArgumentsAreCheckedAndFilledIn(t *testing.T) {
	for name, tt := range map[string]struct {
		function string
		given    map[string]json.RawMessage
		want     map[string]json.RawMessage
		secrets  []string
		problem  string
	}{
		"defaults":           {"area", raw("shape", `{"points":[],"closed":false}`), raw("shape", `{"points":[],"closed":false}`, "scale", "1"), nil, ""},
		"optional":           {"area", raw("shape", `{"points":[],"closed":false}`, "unit", "null", "scale", "2"), raw("shape", `{"points":[],"closed":false}`, "scale", "2"), nil, ""},
		"secrets":            {"login", raw("password", `"${secret:pw}"`), raw("password", `"secret:pw"`, "token", `"secret:TOKEN"`), []string{"password", "token"}, ""},
		"of a Secret":        {"login", raw("password", `"kube:db-login/password"`), raw("password", `"kube:db-login/password"`, "token", `"secret:TOKEN"`), []string{"password", "token"}, ""},
		"no function":        {"aera", nil, nil, nil, `"aera" is no function of package geometry; did you mean area? There are area, each, login, text`},
		"unknown":            {"area", raw("scael", "1"), nil, nil, `"scael" is no argument of area; did you mean scale?`},
		"far off":            {"text", raw("zzzzzz", "1"), nil, nil, `"zzzzzz" is no argument of text; there are text`},
		"missing":            {"each", raw("n", "1"), nil, nil, `the argument "points" of each is missing; its inputs are points (Point[]), n (integer), on (boolean), file (File)`},
		"missing: defaults":  {"area", nil, nil, nil, `the argument "shape" of area is missing; its inputs are shape (Shape), scale (real, default 1), unit (string, optional)`},
		"wrong type":         {"each", raw("points", `[{"x":1},{"x":2},{"x":3},{"x":"abc"}]`), nil, nil, `argument "points[3].x": want a real, have "abc"`},
		"null":               {"text", raw("text", "null"), nil, nil, `argument "text": want a string, have null`},
		"null for a default": {"area", raw("shape", `{"points":[],"closed":false}`, "scale", "null"), nil, nil, `argument "scale": want a real, have null`},
		"too large":          {"text", raw("text", `"`+strings.Repeat("a", MaxArgument)+`"`), nil, nil, `argument "text" takes 122882 bytes; at most 120 KiB are possible`},
		"a literal":          {"login", raw("password", `"hunter2"`), nil, nil, `argument "password" is secret and takes a reference, not the value itself: write password=secret:KEY`},
		"a number":           {"login", raw("password", `12345`), nil, nil, `argument "password" is secret and takes a reference`},
	} {
		got, secrets, err := sample.Arguments(tt.function, tt.given)
		if tt.problem != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.problem) || CodeOf(err) != CodeInvalid {
				t.Errorf("%s:\n got %v\nwant %s", name, err, tt.problem)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "12345")) {
				t.Errorf("%s tells the secret: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(tt.secrets, secrets); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAllArgumentsTogetherAreBounded(t *testing.T) {
	fn := Function{Name: "f", Capture: CaptureComplete}
	given := map[string]json.RawMessage{}
	for i := range 5 {
		name := fmt.Sprintf("a%d", i)
		fn.Inputs = append(fn.Inputs, Parameter{Name: name, Type: "string"})
		given[name] = json.RawMessage(`"` + strings.Repeat("a", 110<<10) + `"`)
	}
	p := Package{Name: "p", Functions: []Function{fn}}
	if _, _, err := p.Arguments("f", given); err == nil || !strings.HasPrefix(err.Error(), `argument "a4": all arguments together take more than 512 KiB`) {
		t.Errorf("got %v", err)
	}
}

func TestArgumentsOfTheCommandLine(t *testing.T) {
	for _, tt := range []struct{ function, word, name, value, problem string }{
		{"text", "text=hello world", "text", `"hello world"`, ""},
		{"text", "text=", "text", `""`, ""},
		{"text", "text=a=b", "text", `"a=b"`, ""},
		{"text", "text=5", "text", `"5"`, ""},
		{"text", `text:="5"`, "text", `"5"`, ""},
		{"each", "n=42", "n", "42", ""},
		{"each", "n=4.2", "", "", `argument "n": want an integer, have "4.2"`},
		{"each", "on=true", "on", "true", ""},
		{"each", "on=yes", "", "", `argument "on": want true or false, have "yes"`},
		{"each", "file=/data/x", "file", `"/data/x"`, ""},
		{"each", `points=[{"x":1}]`, "points", `[{"x":1}]`, ""},
		{"each", `points:=[{"x":1}]`, "points", `[{"x":1}]`, ""},
		{"each", `points=1,2`, "", "", `argument "points": want an array (Point[]), have "1,2"; write it as JSON: 'points:=[VALUE, VALUE]'`},
		{"area", `shape=round`, "", "", `argument "shape": want an object (Shape), have "round"; write it as JSON: 'shape:={"PROPERTY": VALUE}'`},
		{"area", "scale=1e3", "scale", "1000", ""},
		{"area", "scale=NaN", "", "", `argument "scale": want a real, have "NaN"`},
		{"area", "scael=1", "", "", `"scael" is no argument of area; did you mean scale?`},
		{"area", "scale", "", "", `argument "scale" has no value; write scale=VALUE`},
		{"area", "what", "", "", "want NAME=VALUE or NAME:=JSON, but there is no '='; the inputs of area are"},
		{"text", "text:=hello", "", "", `argument "text": what is after := is not valid JSON`},
		{"login", "password=secret:pw", "password", `"secret:pw"`, ""},
		{"nothing", "a=b", "", "", `"nothing" is no function of package geometry; there are`},
	} {
		name, value, err := sample.ParseArgument(tt.function, tt.word)
		if tt.problem != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tt.problem) || CodeOf(err) != CodeInvalid {
				t.Errorf("%s:\n got %v\nwant %s", tt.word, err, tt.problem)
			}
			continue
		}
		if err != nil || name != tt.name || string(value) != tt.value {
			t.Errorf("%s: %s %s %v", tt.word, name, value, err)
		}
	}
}

func TestResults(t *testing.T) {
	for _, tt := range []struct {
		function, output, want string
		cause                  Cause
		summary                string
	}{
		{"area", `{"area": 2}`, "2", "", ""},
		{"area", `{"area": 2, "more": "is left out"}`, "2", "", ""},
		{"login", ``, "null", "", ""},
		{"login", `"anything"`, "null", "", ""},
		{"each", `{"nearest": {"x": 1}, "names": ["a"]}`, `{"names":["a"],"nearest":{"x":1,"y":0}}`, "", ""},
		{"area", ``, "", CauseResultMissing, "The program gave no output, but area declares area (real)"},
		{"area", `null`, "", CauseResultMissing, "The program gave no output"},
		{"area", `{}`, "", CauseResultMissing, `The output "area" (real) of area is missing; the program gave nothing.`},
		{"area", `{"aera": 1}`, "", CauseResultMissing, `The output "area" (real) of area is missing; the program gave "aera".`},
		{"area", `{"area": null}`, "", CauseResultMissing, `The output "area" (real) of area has no value.`},
		{"area", `{"area": "large"}`, "", CauseResultMalformed, `The output "area" of area is not of its type: want a real, have "large".`},
		{"area", `5`, "", CauseResultMalformed, "The output of area is 5, not a mapping"},
		{"area", `{"area": 1, "area": 2}`, "", CauseResultMalformed, `The output of area: "output": has "area" twice.`},
		{"area", `{`, "", CauseResultMalformed, "The output of area is not valid JSON."},
		{"text", `{"text": 5}`, "", CauseResultMalformed, `The output "text" of text is not of its type: want a string, have 5; in YAML, text that looks like something else needs quotes.`},
		{"text", `{"text": "` + strings.Repeat("a", MaxResult) + `"}`, "", CauseResultMalformed, "The output of text takes 1048578 bytes; at most 1 MiB are possible"},
		{"each", `{"names": ["a", 1], "nearest": {"x": 1}}`, "", CauseResultMalformed, `The output "names[1]" of each is not of its type: want a string, have 1.`},
		{"nothing", `{}`, "", CauseResultMalformed, `package geometry has no function "nothing".`},
	} {
		got, err := sample.Result(tt.function, json.RawMessage(tt.output))
		if tt.cause == "" {
			if err != nil || string(got) != tt.want {
				t.Errorf("%s %s: %s, %v", tt.function, tt.output, got, err)
			}
			continue
		}
		if err == nil || err.Cause != tt.cause || !strings.HasPrefix(err.Summary, tt.summary) {
			t.Errorf("%s %.60s:\n got %+v\nwant %s %s", tt.function, tt.output, err, tt.cause, tt.summary)
		}
	}
}

func FuzzArguments(f *testing.F) {
	f.Add("area", "scale", "1")
	f.Add("login", "password", `"hunter2"`)
	f.Add("each", "points", `[{"x":1}]`)
	f.Fuzz(func(t *testing.T, function, name, value string) {
		given := raw(name, value)
		checked, secrets, err := sample.Arguments(function, given)
		if err != nil {
			if CodeOf(err) != CodeInvalid {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		again, secretsAgain, err := sample.Arguments(function, checked)
		if err != nil || !cmp.Equal(again, checked) || !cmp.Equal(secrets, secretsAgain) {
			t.Errorf("%v became %v: %v", checked, again, err)
		}
	})
}

func FuzzParseArgument(f *testing.F) {
	f.Add("area", "scale=1")
	f.Add("each", `points:=[{"x":1}]`)
	f.Add("login", "password=secret:pw")
	f.Fuzz(func(t *testing.T, function, word string) {
		_, value, err := sample.ParseArgument(function, word)
		if err == nil && !json.Valid(value) {
			t.Errorf("%q is no JSON", value)
		}
		if err != nil && (CodeOf(err) != CodeInvalid || !utf8.ValidString(err.Error()) && utf8.ValidString(word)) {
			t.Errorf("%T %v", err, err)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add("area", `{"area": 2}`)
	f.Add("each", `{"nearest": {"x": 1}, "names": ["a"]}`)
	f.Fuzz(func(t *testing.T, function, output string) {
		got, err := sample.Result(function, json.RawMessage(output))
		switch {
		case err == nil && !json.Valid(got):
			t.Errorf("%q is no JSON", got)
		case err != nil && (err.Summary == "" || err.Cause != CauseResultMissing && err.Cause != CauseResultMalformed):
			t.Errorf("%+v", err)
		}
	})
}
