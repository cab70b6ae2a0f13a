package build

import (
	"os"
	"strings"
)

// expand replaces $NAME and ${NAME} of a value by what is set before it, as in
// a Dockerfile; \$ is a dollar sign.
func expand(value string, env []string) string {
	const dollar = "\x00"
	value = strings.ReplaceAll(value, `\$`, dollar)
	value = os.Expand(value, func(name string) string {
		for i := len(env) - 1; i >= 0; i-- {
			if v, ok := strings.CutPrefix(env[i], name+"="); ok {
				return v
			}
		}
		return ""
	})
	return strings.ReplaceAll(value, dollar, "$")
}
