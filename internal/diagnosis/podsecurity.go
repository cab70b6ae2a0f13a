package diagnosis

import "strings"

// PodSecurityLevel is the level that an answer of the API server says a pod
// violates; "" for any other answer.
func PodSecurityLevel(err error) string {
	if err == nil {
		return ""
	}
	m := podSecurity.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	return strings.TrimSpace(word(m[1]))
}
