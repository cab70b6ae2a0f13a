package let

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

var types = map[string]berth.Class{
	"Point": {Properties: []berth.Parameter{{Name: "x", Type: "real"}, {Name: "label", Type: "string", Optional: true}}},
	"Shape": {Properties: []berth.Parameter{{Name: "origin", Type: "Point"}, {Name: "sizes", Type: "integer[]"}, {Name: "source", Type: "File"}}},
}

func TestVariablesAsBraneNamesThem(t *testing.T) {
	for _, tt := range []struct {
		typ, value string
		want       []string
	}{
		{"integer", "42", []string{"A_B=42"}},
		{"boolean", "true", []string{"A_B=true"}},
		{"real", "2.5", []string{"A_B=2.5"}},
		{"real", "3", []string{"A_B=3"}},
		{"real", "1e+21", []string{"A_B=1000000000000000000000"}},
		{"real", "1e-7", []string{"A_B=0.0000001"}},
		{"string", `"say \"hi\"\n"`, []string{"A_B=say \"hi\"\n"}},
		{"string", `""`, []string{"A_B="}},
		{"File", `"/data/x"`, []string{"A_B=/data/x", "A_B_URL=/data/x"}},
		{"integer[]", "[]", []string{"A_B=0"}},
		{"string[]", `["x","y z"]`, []string{"A_B=2", "A_B_0=x", "A_B_1=y z"}},
		{"integer[][]", "[[1],[]]", []string{"A_B=2", "A_B_0=1", "A_B_0_0=1", "A_B_1=0"}},
		{"Point", `{"x":1}`, []string{"A_B_X=1"}},
		{"Point[]", `[{"x":1,"label":"p"},{"x":2}]`, []string{"A_B=2", "A_B_0_X=1", "A_B_0_LABEL=p", "A_B_1_X=2"}},
		{"Shape", `{"origin":{"x":1},"sizes":[7],"source":"/f"}`, []string{"A_B_ORIGIN_X=1", "A_B_SIZES=1", "A_B_SIZES_0=7", "A_B_SOURCE=/f", "A_B_SOURCE_URL=/f"}},
	} {
		fn := &berth.Function{Inputs: []berth.Parameter{{Name: "a_b", Type: tt.typ}, {Name: "left_out", Type: "string", Optional: true}}}
		got, err := Environ(fn, types, map[string]json.RawMessage{"a_b": json.RawMessage(tt.value)})
		if err != nil {
			t.Errorf("%s %s: %v", tt.typ, tt.value, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s %s: %s", tt.typ, tt.value, diff)
		}
	}
}

func TestInputsThatBecomeTheSameVariable(t *testing.T) {
	fn := &berth.Function{Inputs: []berth.Parameter{{Name: "a", Type: "integer[]"}, {Name: "a_0", Type: "integer"}}}
	_, err := Environ(fn, nil, map[string]json.RawMessage{"a": json.RawMessage("[1]"), "a_0": json.RawMessage("2")})
	if err == nil || err.Error() != "the inputs a and a_0 both become the variable A_0; rename one" {
		t.Errorf("got %v", err)
	}
}

func TestLargeArraysAreNotSpreadOut(t *testing.T) {
	t.Parallel()
	fn := &berth.Function{Inputs: []berth.Parameter{{Name: "a", Type: "integer[]"}}}
	value := "[" + strings.Repeat("1,", 50_000) + "1]"
	got, err := Environ(fn, nil, map[string]json.RawMessage{"a": json.RawMessage(value)})
	if err != nil || !cmp.Equal(got, []string{"A=50001"}) {
		t.Errorf("%d variables, %v", len(got), err)
	}
}

func TestInputJSON(t *testing.T) {
	got := InputJSON(map[string]json.RawMessage{"b": json.RawMessage(`{"x": 1}`), "a": json.RawMessage(`"<s>"`)})
	if want := `{"a":"<s>","b":{"x":1}}` + "\n"; string(got) != want {
		t.Errorf("got %s", got)
	}
}

func capture(mode berth.Capture, text string, piece int) (kept, log string, err error) {
	var out strings.Builder
	c := NewCapture(&berth.Function{Capture: mode, Outputs: []berth.Parameter{{Name: "a", Type: "string"}}}, &out)
	for len(text) > 0 && err == nil {
		n := min(piece, len(text))
		_, err = c.Write([]byte(text[:n]))
		text = text[n:]
	}
	if closed := c.Close(); err == nil {
		err = closed
	}
	return string(c.Captured()), out.String(), err
}

func TestCapture(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*maxPending)
	for name, tt := range map[string]struct {
		mode            berth.Capture
		text, kept, log string
	}{
		"complete":            {berth.CaptureComplete, "a: 1\nb", "a: 1\nb", ""},
		"nothing said":        {"", "a: 1\n", "a: 1\n", ""},
		"marked":              {berth.CaptureMarked, "log\n--> START CAPTURE\na: 1\n  b: 2\n--> END CAPTURE\nmore", "a: 1\n  b: 2\n", "log\nmore\n"},
		"marks are indented":  {berth.CaptureMarked, "  --> START CAPTURE now\na: 1\n\t--> END CAPTURE\n", "a: 1\n", ""},
		"only the first":      {berth.CaptureMarked, "--> START CAPTURE\na: 1\n--> END CAPTURE\n--> START CAPTURE\nb: 2\n", "a: 1\n", "--> START CAPTURE\nb: 2\n"},
		"no end":              {berth.CaptureMarked, "--> START CAPTURE\na: 1", "a: 1\n", ""},
		"an end alone":        {berth.CaptureMarked, "--> END CAPTURE\nx\n", "", "--> END CAPTURE\nx\n"},
		"started twice":       {berth.CaptureMarked, "--> START CAPTURE\na: 1\n--> START CAPTURE\nb: 2\n", "a: 1\nb: 2\n", ""},
		"line ends of DOS":    {berth.CaptureMarked, "--> START CAPTURE\r\na: 1\r\n--> END CAPTURE\r\nx\r\n", "a: 1\n", "x\r\n"},
		"prefixed":            {berth.CapturePrefixed, "log\n~~> a: 1\n ~~> no\n~~>b: 2\n", " a: 1\nb: 2\n", "log\n ~~> no\n"},
		"prefixed twice":      {berth.CapturePrefixed, "~~>~~>a: 1", "a: 1\n", ""},
		"an empty line":       {berth.CapturePrefixed, "\n~~>\n\n", "\n", "\n\n"},
		"a long line":         {berth.CapturePrefixed, long + "\n~~>" + long + "\nend", long + "\n", long + "\nend\n"},
		"a long line, marked": {berth.CaptureMarked, long + "\n--> START CAPTURE\n" + long + "\n--> END CAPTURE\n" + long, long + "\n", long + "\n" + long + "\n"},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			kept, log, err := capture(tt.mode, tt.text, piece)
			if err != nil || kept != tt.kept || log != tt.log {
				t.Errorf("%s by %d: kept %.80q, log %.80q, %v", name, piece, kept, log, err)
			}
		}
	}
}

func TestWithoutOutputsAllOfItIsLog(t *testing.T) {
	var out strings.Builder
	c := NewCapture(&berth.Function{Capture: berth.CaptureComplete}, &out)
	if _, err := c.Write([]byte("hello\nworld")); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil || out.String() != "hello\nworld\n" || len(c.Captured()) != 0 {
		t.Errorf("%q %q %v", out.String(), c.Captured(), err)
	}
}

func TestTooLargeAResultIsAnErrorThatStays(t *testing.T) {
	t.Parallel()
	c := NewCapture(&berth.Function{Outputs: []berth.Parameter{{Name: "a", Type: "string"}}}, nil)
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range 4 {
		if _, err := c.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if n, err := c.Write([]byte("x")); n != 0 || err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
			t.Errorf("%d, %v", n, err)
		}
	}
	if err := c.Close(); err == nil {
		t.Error("the error is gone")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestALogThatCantBeWritten(t *testing.T) {
	c := NewCapture(&berth.Function{}, full{})
	if _, err := c.Write([]byte("a\n")); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
}

func TestDecode(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		" \n\n":                             "",
		"c: 5\n":                            `{"c":5}`,
		" c: 5\n d: 6\n":                    `{"c":5,"d":6}`,
		"{\"c\": 5, \"d\": \"<x>\"}\n":      `{"c":5,"d":"<x>"}`,
		"{c: five}":                         `{"c":"five"}`,
		"---\nc: [1, 2]\n...\n":             `{"c":[1,2]}`,
		"c: 12345678901234567890":           `{"c":12345678901234567890}`,
		"12345678901234567890":              "12345678901234567890",
		"1: a\ntrue: b\n":                   `{"1":"a","true":"b"}`,
		"c:\n- 1\n- 2.50\n":                 `{"c":[1,2.5]}`,
		"output: |\n  two\n  lines\n":       `{"output":"two\nlines\n"}`,
		"c: &a 1\nd: *a\n":                  `{"c":1,"d":1}`,
		"{\"c\":\t5}":                       `{"c":5}`,
		"c: \"a\\tb\"":                      `{"c":"a\tb"}`,
		"c:\n":                              `{"c":null}`,
		"\ufeffc: 1":                        `{"c":1}`,
		"output: Hello, world: this is not": "",
	} {
		got, err := Decode([]byte(text))
		if strings.HasPrefix(text, "output: Hello") {
			if err == nil {
				t.Errorf("%q is %s", text, got)
			}
			continue
		}
		if err != nil || string(got) != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

func TestOutputThatIsNoValue(t *testing.T) {
	t.Parallel()
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'k'; i++ {
		bomb += string(i) + ": &" + string(i) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(i-1)+",", 10), ",") + "]\n"
	}
	for name, tt := range map[string]struct{ text, want string }{
		"binary":     {"\x7fELF\x00\x01", "the output has the control character U+007F, as binary data do; it begins with \"\\x7fELF"},
		"not UTF-8":  {"caf\xe9", `the output is not UTF-8 text; it begins with "caf\xe9"`},
		"a colour":   {"\x1b[1mc: 5", "the output has the control character U+001B"},
		"half":       {`{"c": 5`, "the output is neither YAML nor JSON (output:1:"},
		"a tag":      {"c: !!python/tuple [1]", "tags (!!python/tuple) are not understood"},
		"two":        {"c: 1\n---\nd: 2\n", "a second YAML document begins here"},
		"twice":      {"c: 1\nc: 2\n", "is there twice"},
		"nan":        {"c: .nan", "infinity and NaN have no form in JSON"},
		"a bomb":     {bomb, "multiply the text"},
		"deep":       {strings.Repeat("[", 1<<20), "nests deeper"},
		"deep, JSON": {strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20), "nests deeper"},
	} {
		start := time.Now()
		got, err := Decode([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %.80s, %v; want %s", name, got, err, tt.want)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

func FuzzCapture(f *testing.F) {
	f.Add("marked", "log\n--> START CAPTURE\na: 1\n--> END CAPTURE\nmore", 3)
	f.Add("prefixed", "log\n~~> a: 1\n", 1)
	f.Add("complete", "a: 1\n", 2)
	f.Fuzz(func(t *testing.T, mode, text string, piece int) {
		if piece < 1 {
			return
		}
		kept, log, err := capture(berth.Capture(mode), text, piece)
		whole, wholeLog, wholeErr := capture(berth.Capture(mode), text, len(text)+1)
		if kept != whole || log != wholeLog || err != nil || wholeErr != nil {
			t.Errorf("by %d: %q %q, at once %q %q", piece, kept, log, whole, wholeLog)
		}
		if log != "" && !strings.HasSuffix(log, "\n") {
			t.Errorf("the log's last line has no end: %q", log)
		}
		if len(kept)+len(log) > len(text)+1 {
			t.Errorf("%q became %q and %q", text, kept, log)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"c: 5\n", `{"c": [1, 2.5e3]}`, "a: &a [*a]", "c: |\n  x\n", "? a\n: b\n", "<<: *a", "c: 0x1F", "- - - a"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Decode(text)
		if err != nil {
			if err.Error() == "" || utf8.Valid(text) && !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		if got == nil {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("%q became %q", text, got)
		}
		again, err := Decode(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%q became %q (%v)", got, again, err)
		}
	})
}
