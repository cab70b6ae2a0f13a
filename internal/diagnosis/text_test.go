package diagnosis

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestCleanRemovesWhatMustNotBeShown(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"colours", "\x1b[31mred\x1b[0m", "red"},
		{"window title", "a\x1b]0;owned\x07b", "ab"},
		{"hyperlink", "\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"},
		{"bells and backspaces", "a\x07\x08b\x00c", "abc"},
		{"carriage return", "100%\rover", "100%\nover"},
		{"direction marks", "abc\u202egnp.exe", "abcgnp.exe"},
		{"bad UTF-8", "a\xffb", "a\uFFFDb"},
		{"bearer", "Authorization: Bearer abcdef0123456789.xyz", "Authorization: Bearer [redacted]"},
		{"JWT", "token eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJr.c2lnbmF0dXJl was", "token [redacted] was"},
		{"URL credentials", `Get "https://user:pa%20ss@registry.example/v2/": EOF`, `Get "https://[redacted]@registry.example/v2/": EOF`},
		{"signed URL", "https://s3.example/x?X-Amz-Signature=abc123&X-Amz-Date=1", "https://s3.example/x?X-Amz-Signature=[redacted]&X-Amz-Date=1"},
		{"token in URL", "https://r.example/token?access_token=abc&service=r", "https://r.example/token?access_token=[redacted]&service=r"},
		{"an address is no credential", "user@example.com at https://r.example/a@sha256:00", "user@example.com at https://r.example/a@sha256:00"},
		{"lines stay", "a\n\tb", "a\n\tb"},
	} {
		if got := clean(test.in); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestCleanBoundsLength(t *testing.T) {
	got := clean(strings.Repeat("ä", 5000))
	if len(got) > maxText || !strings.HasSuffix(got, " bytes more)") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, ending %q", len(got), got[len(got)-30:])
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mBearer abcdefghijkl\x1b[0m")
	f.Add("https://a:b@c/d?token=x")
	f.Add(strings.Repeat("\u202eäx ", 1000))
	f.Add("\x1b\x1b[31m\x9b31m")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if len(got) > maxText {
			t.Errorf("%d bytes", len(got))
		}
		if !utf8.ValidString(got) {
			t.Errorf("not UTF-8: %q", got)
		}
		for _, r := range got {
			if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
				t.Errorf("%U is left", r)
			}
		}
		if again := clean(got); again != got {
			t.Errorf("not stable: %q, then %q", got, again)
		}
		if one := word(s); strings.ContainsAny(one, "\n\t") || len(one) > maxWord {
			t.Errorf("not one short line: %q", one)
		}
	})
}
