package workflow

import (
	"regexp"
	"strings"
)

// fromPython says what to write in place of words that Python has and Starlark
// doesn't; Starlark itself says no more than that it did not expect them.
var fromPython = map[string]string{
	"import":   `package("NAME") gives the functions of a package, and load("FILE.star", "NAME") what another file of the program has`,
	"from":     `package("NAME") gives the functions of a package, and load("FILE.star", "NAME") what another file of the program has`,
	"try":      "try_call(FUNCTION, NAME = VALUE) gives a failure as a value",
	"except":   "try_call(FUNCTION, NAME = VALUE) gives a failure as a value",
	"finally":  "try_call(FUNCTION, NAME = VALUE) gives a failure as a value",
	"raise":    `fail("why") ends the run`,
	"assert":   `if not ...: fail("why") ends the run`,
	"class":    "use functions and dicts",
	"with":     "files are opened by the functions that a workflow calls",
	"is":       "compare with == or !=",
	"del":      "use .pop(...)",
	"global":   "return what a function makes",
	"nonlocal": "return what a function makes",
	"yield":    "return a list",
	"async":    ".submit(...) calls without waiting, and .result() waits",
	"await":    ".submit(...) calls without waiting, and .result() waits",
	"**":       "use math.pow(x, y)",
}

var (
	// unexpected finds what Starlark did not expect.
	unexpected = regexp.MustCompile(`^(?:got (\w+|'\*\*'),|unexpected input character '(@)')`)
	fString    = regexp.MustCompile(`\b[fF]r?["'][^"']*["']?$`)
	annotated  = regexp.MustCompile(`^def \w+\((?:.*\w|.*\))$`) // a parameter, or all of them
)

// pythonHint says what to write in place of Python that Starlark does not have,
// by what it says of it, and the line up to there, which may be the end of what it
// means; empty where it is something else.
func pythonHint(message, before string) string {
	trimmed := strings.TrimSpace(before)
	word := ""
	if m := unexpected.FindStringSubmatch(message); m != nil {
		word = strings.Trim(m[1]+m[2], "'")
	}
	switch {
	case strings.HasPrefix(trimmed, "assert "): // a name like others, which something follows
		word = "assert"
	case strings.HasPrefix(message, "got string literal") && fString.MatchString(before):
		return `Starlark has no f-strings: use "{}".format(x)`
	case (strings.HasPrefix(message, "got ':'") || strings.HasPrefix(message, "got '-'")) && annotated.MatchString(strings.TrimRight(trimmed, ":- ")):
		return "Starlark has no types of arguments and results: leave them out"
	case word == "@":
		return "Starlark has no decorators"
	}
	if instead, ok := fromPython[word]; ok {
		return "Starlark has no " + word + ": " + instead
	}
	return ""
}
