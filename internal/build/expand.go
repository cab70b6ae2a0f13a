package build

import (
	"regexp"
	"strings"
)

// reference is what a value names another variable by; a backslash before a
// dollar sign takes its meaning away, as in a Dockerfile.
var reference = regexp.MustCompile(`\\\$|\$([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces $NAME and ${NAME} of a value by what is set before it; \$ is
// a dollar sign, and so is one that no name follows.
func expand(value string, env []string) string {
	return reference.ReplaceAllStringFunc(value, func(text string) string {
		if text == `\$` {
			return "$"
		}
		name := strings.Trim(text, "${}")
		for i := len(env) - 1; i >= 0; i-- {
			if v, ok := strings.CutPrefix(env[i], name+"="); ok {
				return v
			}
		}
		return ""
	})
}

// quoted is a value as a Dockerfile writes it, so that it means there what
// expand makes of it.
func quoted(value string) string {
	var out strings.Builder
	literal := func(text string) {
		out.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(text))
	}
	at := 0
	for _, found := range reference.FindAllStringIndex(value, -1) {
		literal(value[at:found[0]])
		if text := value[found[0]:found[1]]; text == `\$` {
			out.WriteString(text)
		} else {
			out.WriteString("${" + strings.Trim(text, "${}") + "}")
		}
		at = found[1]
	}
	literal(value[at:])
	return `"` + out.String() + `"`
}
