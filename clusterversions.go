package berth

import (
	"fmt"
	"strings"
)

// VersionsDiffer says what is wrong with versions of a Python and its packages
// that are to work together; empty: nothing. What is computed is sent as pickled
// programs, which another minor version of Python, or another version of the
// engine, may not read. whose and others are the words for whose they are.
func VersionsDiffer(whose string, versions map[string]string, others string, theirs map[string]string) string {
	var wrong []string
	compare := func(name, mine, its string) {
		if mine != "" && its != "" && mine != its {
			wrong = append(wrong, fmt.Sprintf("%s of %s is %s, of %s %s", name, whose, mine, others, its))
		}
	}
	compare("Python", minorVersion(versions["python"]), minorVersion(theirs["python"]))
	compare("dask", versions["dask"], theirs["dask"])
	compare("distributed", versions["distributed"], theirs["distributed"])
	if len(wrong) == 0 {
		return ""
	}
	return "versions differ, which may break what is computed: " + strings.Join(wrong, "; ")
}

// minorVersion is a version without what comes behind its second number.
func minorVersion(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
