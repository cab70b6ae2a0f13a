package diagnosis

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxText     = 2000     // bytes of one piece of evidence
	maxRead     = 16 << 10 // bytes that are looked at
	maxEvidence = 40       // pieces of evidence of a finding
	maxWord     = 400      // bytes of what is put into a sentence
)

var (
	// Terminal escapes: CSI, OSC (ended by BEL or ST) and the two-byte ones.
	escapes = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\^_])")

	secrets = []struct {
		needs   []string // in lower case: one of them is in whatever matches, which is looked for first
		pattern *regexp.Regexp
		with    string
	}{
		{[]string{"bearer", "basic"}, regexp.MustCompile(`(?i)\b(bearer|basic)[ \t]+[A-Za-z0-9\-._~+/]{8,}=*`), "$1 [redacted]"},
		{[]string{"eyj"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), "[redacted]"},
		{[]string{"@"}, regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.\-]*://)[^\s/@"']+@`), "$1[redacted]@"},
		{[]string{"?", "&"}, regexp.MustCompile(`(?i)([?&](?:[a-z0-9_-]*(?:token|password|passwd|secret|signature|credential|api[_-]?key)|sig|key)=)[^&\s"']+`), "$1[redacted]"},
	}
)

// clean makes text that others wrote fit to be shown and stored: valid UTF-8
// without control characters, terminal escapes and invisible direction marks,
// without tokens and URL credentials, of bounded length. Lines stay lines.
func clean(s string) string { return cleanTo(s, maxText) }

// word is clean for what becomes part of a sentence: one line, shorter.
func word(s string) string {
	return cleanTo(strings.Join(strings.Fields(clean(s)), " "), maxWord)
}

// plain is text that others wrote without what a terminal would act upon or not
// show, as matchers look at it: whole, but for what is beyond maxRead.
func plain(s string) string {
	s = s[:min(len(s), maxRead)]
	if !slices.ContainsFunc([]byte(s), func(b byte) bool { return b < ' ' && b != '\n' && b != '\t' || b >= 0x7f }) {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = escapes.ReplaceAllString(s, "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return '\n'
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return -1
		}
		return r
	}, s)
}

func cleanTo(s string, limit int) string {
	beyond := max(len(s)-maxRead, 0)
	s = plain(s)
	lower := strings.ToLower(s)
	for _, secret := range secrets {
		if !slices.ContainsFunc(secret.needs, func(need string) bool { return strings.Contains(lower, need) }) {
			continue
		}
		s = secret.pattern.ReplaceAllString(s, secret.with)
	}
	s = strings.TrimSpace(s)
	if len(s) <= limit && beyond == 0 {
		return s
	}
	const room = 32 // for the note
	cut := min(limit-room, len(s))
	for cut > 0 && cut < len(s) && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes more)", s[:cut], len(s)-cut+beyond)
}
