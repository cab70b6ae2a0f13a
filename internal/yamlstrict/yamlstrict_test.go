package yamlstrict

import (
	"strings"
	"testing"

	"github.com/berth-run/berth"
)

func document(t *testing.T, text string) *Document {
	t.Helper()
	doc, err := Parse("f.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheFirstMistakeStays(t *testing.T) {
	doc := document(t, "a: [1]\nb: {}\n")
	fields := doc.Root().Fields("a", "b")
	if got := fields.Get("b").Text(); got != "" {
		t.Errorf("a map gave %q", got)
	}
	fields.Get("a").Int(0, 1)
	want := "f.yml:2:4: b: want a string, but this is a map"
	if err := doc.Err(); err == nil || err.Error() != want || berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestWhatIsAbsentIsZero(t *testing.T) {
	doc := document(t, "")
	fields := doc.Root().Fields("a")
	a := fields.Get("a")
	if a.Present() || a.Text() != "" || a.Items() != nil || a.Entries() != nil || a.Bool() || a.Duration(1, 2) != 0 || a.TextMap() != nil || a.IsList() {
		t.Error("an absent field gave something")
	}
	a.Failf("nothing")
	if err := doc.Err(); err != nil {
		t.Error(err)
	}
}

func TestAliasesStandForTheirAnchors(t *testing.T) {
	doc := document(t, "a: &x {k: v}\nb: *x\nc: &loop [*loop]\n")
	fields := doc.Root().Fields("a", "b", "c")
	if got := fields.Get("b").TextMap()["k"]; got != "v" {
		t.Errorf("got %q", got)
	}
	if got := fields.Get("c").Items(); len(got) != 1 {
		t.Errorf("%d items", len(got))
	}
}

func TestScalarsAsTheyAreWritten(t *testing.T) {
	doc := document(t, "a: 1.10\nb: 0x1F\nc: true\nd: 'x'\ne: \"5\"\nf: |\n  two\n  lines\n")
	want := map[string]string{"a": "1.10", "b": "0x1F", "c": "true", "d": "x", "e": "5", "f": "two\nlines\n"}
	for name, text := range doc.Root().TextMap() {
		if text != want[name] {
			t.Errorf("%s is %q, want %q", name, text, want[name])
		}
	}
	if err := doc.Err(); err != nil {
		t.Error(err)
	}
}

func TestCarriageReturnsAndByteOrderMarks(t *testing.T) {
	doc := document(t, "\ufeffa: x\r\nb: 1\r\n")
	fields := doc.Root().Fields("a", "b")
	if got := fields.Get("a").Text(); got != "x" {
		t.Errorf("got %q", got)
	}
	fields.Get("b").Text()
	if err := doc.Err(); err == nil || !strings.HasPrefix(err.Error(), "f.yml:2:4: b:") {
		t.Errorf("got %v", err)
	}
}

func TestLargeFilesAreRefused(t *testing.T) {
	if _, err := Parse("f.yml", []byte(strings.Repeat("a", maxBytes+1))); err == nil || !strings.HasPrefix(err.Error(), "f.yml:1:1: ") {
		t.Errorf("got %v", err)
	}
}
