// Package version knows which build of Berth this is.
package version

import "runtime/debug"

// version is set by the Makefile with -ldflags -X.
var version = ""

// String returns the version, such as "0.1.0" or "0.1.0-dev+1a2b3c4d".
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.0.0-dev"
}
