package cli

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func sanitized(pieces ...string) string {
	var s sanitizer
	var out strings.Builder
	for _, piece := range pieces {
		out.Write(s.clean([]byte(piece)))
	}
	out.Write(s.rest())
	return out.String()
}

func TestNothingOfALogSteersATerminal(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"text":                          {"Grüße, 世界\tand more\r\n", "Grüße, 世界\tand more\r\n"},
		"a progress bar":                {"10%\r20%\r30%\n", "10%\r20%\r30%\n"},
		"colours":                       {"\x1b[1;31mred\x1b[0m\n", "red\n"},
		"the cursor":                    {"a\x1b[2J\x1b[Hb", "ab"},
		"the title, ended by BEL":       {"a\x1b]0;title\x07b", "ab"},
		"the clipboard, ended by ST":    {"a\x1b]52;c;aGk=\x1b\\b", "ab"},
		"a device control string":       {"a\x1bP+q544e\x1b\\b", "ab"},
		"application commands":          {"a\x1b_Gf=100;AAAA\x1b\\b\x1b^x\x1b\\c\x1bXx\x1b\\d", "abcd"},
		"a character set":               {"a\x1b(0b\x1b%Gc", "abc"},
		"a reset":                       {"a\x1bcb", "ab"},
		"C1 as UTF-8":                   {"a\u009b31mb\u009d0;t\u009cc\u0085d", "abcd"},
		"C1 as bytes":                   {"a\x9b31mb\x9d0;t\x9cc\x90q\x9cd", "abcd"},
		"other controls":                {"a\x00\x07\x08\x0b\x0c\x0e\x7fb", "ab"},
		"bytes that are no characters":  {"a\xff\xc3(b", "a\uFFFD\uFFFD(b"},
		"a string without an end":       {"a\x1b]0;title\nb", "a\nb"},
		"a sequence without an end":     {"a\x1b[31\nb", "a\nb"},
		"a sequence within a string":    {"a\x1b]0;x\x1b[31mb", "ab"},
		"a character that is cut":       {"a\xe4\xb8", "a\uFFFD"},
		"an escape that escapes itself": {"a\x1b\x1b[31mb", "ab"},
	} {
		if got := sanitized(tt.text); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		for at := range tt.text {
			if got := sanitized(tt.text[:at], tt.text[at:]); got != tt.want {
				t.Errorf("%s, in two pieces at %d: %q, want %q", name, at, got, tt.want)
			}
		}
	}
}

func FuzzSanitizer(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\x9b\u009b\n"), 3)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		at = max(0, min(at, len(data)))
		got := sanitized(string(data[:at]), string(data[at:]))
		if whole := sanitized(string(data)); got != whole {
			t.Fatalf("in pieces %q, as one %q", got, whole)
		}
		if !utf8.ValidString(got) {
			t.Fatalf("%q has bytes that are no characters", got)
		}
		for _, r := range got {
			if unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
				t.Fatalf("%q has %U", got, r)
			}
		}
		if strings.Count(string(data), "\n") != strings.Count(got, "\n") {
			t.Fatalf("%q: lines of %q are missing", got, data)
		}
		if sanitized(got) != got {
			t.Fatalf("%q isn't clean", got)
		}
	})
}
