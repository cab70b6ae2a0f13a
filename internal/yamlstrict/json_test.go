package yamlstrict

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestJSONOfScalars(t *testing.T) {
	for text, want := range map[string]string{
		"010": "10", "yes": `"yes"`, "1_000": `"1_000"`, "0x1F": "31", "0o17": "15", "0b11": `"0b11"`, "+1": "1", "-0": "0", ".5": "0.5", "1e3": "1000.0", "1.": "1.0",
		"2024-01-01": `"2024-01-01"`, "'5'": `"5"`, `"5"`: `"5"`, "~": "null", "": "null", "True": "true", "12345678901234567890123": "12345678901234567890123",
		"1:30": `"1:30"`, "1.2.3": `"1.2.3"`, "Infinity": `"Infinity"`, "long\n  text": `"long text"`, "|\n  x\n  y": `"x\ny\n"`, "<b> & c": `"<b> & c"`,
		"[1, {b: 2.50, 3: x}]": `[1,{"b":2.5,"3":"x"}]`, "1e-07": "1e-7", `"\u00e9"`: `"é"`,
	} {
		doc := document(t, "a: "+text+"\n")
		got := doc.Root().Fields("a").Get("a").JSON()
		if string(got) != want || doc.Err() != nil || !json.Valid(got) {
			t.Errorf("%q is %s, want %s (%v)", text, got, want, doc.Err())
		}
	}
}

func TestWhatIsNoJSON(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'k'; i++ {
		before := string(i - 1)
		bomb += string(i) + ": &" + string(i) + " [" + strings.TrimSuffix(strings.Repeat("*"+before+",", 10), ",") + "]\n"
	}
	for name, tt := range map[string]struct{ text, want string }{
		"not a number":   {"a: .nan\n", "f.yml:1:4: a: .nan is no number"},
		"infinite":       {"a: -.inf\n", "f.yml:1:4: a: -.inf is no number"},
		"too large":      {"a: 1e999\n", "f.yml:1:4: a: the number is too large"},
		"a tag":          {"a: !!python/tuple [1]\n", "f.yml:1:4: a: tags (!!python/tuple) are not understood"},
		"a loop":         {"a: &a [*a]\n", "nests deeper than 100"},
		"a bomb":         {bomb, "multiply the text"},
		"deep":           {strings.Repeat("[", 3000), "it nests deeper"},
		"deep dashes":    {strings.Repeat("- ", 100000), "it nests deeper"},
		"deep questions": {strings.Repeat("? ", 100000), "it nests deeper"},
	} {
		start := time.Now()
		doc, err := ParseOutput("f.yml", []byte(tt.text))
		if err == nil {
			if got := doc.Root().JSON(); got != nil {
				t.Errorf("%s: is %.100s", name, got)
			}
			err = doc.Err()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}
